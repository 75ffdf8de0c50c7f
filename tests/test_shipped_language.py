"""The shipped specs and spaces in the language: each is valid by the JSON Schema and survives being written."""

from __future__ import annotations

import pytest
from json_schema import valid_by_schema

from archdsl.language import load, load_space, loads, shipped_spaces, shipped_specs
from archdsl.language.space.schema import schema
from archdsl.language.text.yaml_text import parse

SPECS, SPACES = shipped_specs(), shipped_spaces()


def test_something_ships():
    assert len(SPECS) >= 40
    assert SPACES


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_is_called_as_its_file_and_valid_by_the_schema(path):
    data = parse(path.read_bytes(), path.name).plain()
    assert data["name"] == path.stem
    assert valid_by_schema(data, schema("spec"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_survives_being_written(path):
    spec = load(path, check=False)
    assert load(path.stem, check=False) == spec
    assert loads(spec.to_yaml(), check=False) == spec
    assert "extends" not in spec.data


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_is_valid_by_the_schema_and_holds_its_start_designs(path):
    assert valid_by_schema(parse(path.read_bytes(), path.name).plain(), schema("space"))
    space = load_space(path.stem, check=False)
    for start in space.start:
        assert space.assignment_of(space.spec(start.assignment, check=False)) == start.assignment


@pytest.mark.promise(7)
def test_the_same_spec_has_the_same_text_whatever_the_file_looks_like():
    spec = load("swin_t", check=False)
    text = spec.to_yaml()
    assert "# " not in text
    assert loads(text, "x", check=False).to_yaml() == text
