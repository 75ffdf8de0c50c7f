"""The schemas in the repository are those of the code, and every shipped file keeps to them."""

import json
from pathlib import Path

import jsonschema
import pytest

from archdsl.cli.main import run
from archdsl.errors import SpecError
from archdsl.language import shipped_spaces, shipped_specs
from archdsl.language.space.schema import schema
from archdsl.language.text.files import shipped
from archdsl.language.text.yaml_text import parse
from archdsl.training import Recipe, parse_recipe
from archdsl.training.recipe import recipe_schema

ROOT = Path(__file__).parents[1]


KINDS = {"specs": "spec", "search": "space", "recipes": "recipe"}
"""By the folder in which its files are."""


def schema_of(kind):
    return recipe_schema() if kind == "recipe" else schema(kind)


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_schema_in_the_repository_is_up_to_date(kind, capsys):
    kept = json.loads((ROOT / "schemas" / f"{kind}.json").read_text())
    assert kept == schema_of(kind), f"run: archdsl schema {kind} > schemas/{kind}.json"
    assert run(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out) == kept


@pytest.mark.parametrize(
    "path",
    [*shipped_specs(), *shipped_spaces(), *shipped("recipes")],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_a_shipped_file_names_its_schema_and_keeps_to_it(path: Path):
    kind = KINDS[path.parent.name]
    text = path.read_text()
    assert text.startswith(f"# yaml-language-server: $schema=../schemas/{kind}.json\n")
    jsonschema.validate(parse(text, path.name).plain(), schema_of(kind))


NEEDED = {"epochs": 1, "batch": 8, "lr": 1e-3}


@pytest.mark.parametrize(
    "fields",
    [
        *({"extends": "swin"}, {"extends": "swin", "lr": 2e-3}, NEEDED, {**NEEDED, "betas": [0.9, 0.99]}),
        *({**NEEDED, "drop_path": None}, {**NEEDED, "auto_augment": "rand-m9-mstd0.5-inc1"}, {**NEEDED, "lr": 1}),
        *({}, {"epochs": 1, "batch": 8}, {**NEEDED, "extends": 3}, {**NEEDED, "warmpu": 0.1}, {**NEEDED, "epochs": 0}),
        *({**NEEDED, "lr": 0}, {**NEEDED, "lr": 101}, {**NEEDED, "warmup": 1}, {**NEEDED, "optimizer": "adam"}),
        *({**NEEDED, "betas": [0.9]}, {**NEEDED, "betas": [0.9, 1.0]}, {**NEEDED, "auto_augment": "rnd-m9"}),
        *({**NEEDED, "ema_warmup": 1}, {**NEEDED, "batch": 1.5}, {**NEEDED, "batch": True}, {**NEEDED, "amp": False}),
    ],
    ids=str,
)
def test_the_schema_of_recipes_refuses_what_reading_one_refuses(fields):
    try:
        read = isinstance(parse_recipe(fields), Recipe)
    except SpecError:
        read = False
    assert jsonschema.Draft7Validator(recipe_schema()).is_valid(fields) == read


def test_the_schema_refuses_what_the_language_refuses():
    wrong = {"name": "x", "stages": [{"block": "swin", "depth": 2, "heads": "three"}]}
    with pytest.raises(jsonschema.ValidationError, match="three"):
        jsonschema.validate(wrong, schema("spec"))
