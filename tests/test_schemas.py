"""The schemas in the repository are those of the code, and every shipped file keeps to them."""

import json
from pathlib import Path

import jsonschema
import pytest

from archdsl.spec import shipped_spaces, shipped_specs
from archdsl.spec.schema import schema
from archdsl.spec.yaml_text import parse

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["spec", "space"])
def test_the_schema_in_the_repository_is_up_to_date(kind):
    kept = json.loads((ROOT / "schemas" / f"{kind}.json").read_text())
    assert kept == schema(kind), f"run: archdsl schema {kind} > schemas/{kind}.json"


@pytest.mark.parametrize("path", [*shipped_specs(), *shipped_spaces()], ids=lambda path: path.stem)
def test_a_shipped_file_names_its_schema_and_keeps_to_it(path: Path):
    kind = "space" if path.parent.name == "search" else "spec"
    text = path.read_text()
    assert text.startswith(f"# yaml-language-server: $schema=../schemas/{kind}.json\n")
    jsonschema.validate(parse(text, path.name).plain(), schema(kind))


def test_the_schema_refuses_what_the_language_refuses():
    wrong = {"name": "x", "stages": [{"block": "swin", "depth": 2, "heads": "three"}]}
    with pytest.raises(jsonschema.ValidationError, match="three"):
        jsonschema.validate(wrong, schema("spec"))
