"""JSON Schema of a space, and both schemas by name."""

from __future__ import annotations

from typing import Any, Literal, get_args

from archdsl.language.architecture.model import Header
from archdsl.language.architecture.schema import DRAFT, REF, Json, properties_of, spec_schema
from archdsl.language.space.objectives import MEASURED, Constraints, Objectives, Search
from archdsl.language.text import limits

SchemaName = Literal["spec", "space"]


def schema(name: SchemaName = "spec") -> Json:
    """The JSON Schema of a spec or of a space.

    Raises: ValueError for another name
    Example:
        >>> schema("space")["required"]
        ['base', 'choices']
    """
    if name not in get_args(SchemaName):
        raise ValueError(f"there is a schema of `spec` and of `space`, but got {name!r}")
    return space_schema() if name == "space" else spec_schema()


def space_schema() -> Json:
    """Draft 7. Paths of choices are checked when the space is loaded: they depend on its base."""
    definitions: Json = {}
    header = properties_of(Header, {})
    sections = {
        "constraints": _section(Constraints, "what every network must keep to", definitions),
        "objectives": _section(Objectives, "what the study makes better", definitions),
        "search": _section(Search, "how the study goes", definitions),
    }
    one = {"$ref": f"{REF}TargetObjective"}
    for name in MEASURED:
        several = sections["objectives"]["properties"][name]
        sections["objectives"]["properties"][name] = {"anyOf": [one, *several["anyOf"]]}
    options = {"type": "array", "minItems": 1, "maxItems": limits.MAX_OPTIONS}
    definitions["range"] = {
        "type": "object",
        "properties": {
            "range": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            "step": {"type": "number", "exclusiveMinimum": 0},
        },
        "required": ["range"],
        "additionalProperties": False,
    }
    definitions["options"] = {"anyOf": [options, {"$ref": f"{REF}range"}]}
    definitions["choice"] = {
        "anyOf": [
            {"$ref": f"{REF}options"},
            {
                "type": "object",
                "description": "one choice for all matches of the path",
                "properties": {"same": {"$ref": f"{REF}options"}},
                "required": ["same"],
                "additionalProperties": False,
            },
        ]
    }
    return {
        "$schema": DRAFT,
        "title": "archdsl space",
        "description": "A base spec and what may be chosen about it.",
        "type": "object",
        "properties": {
            "name": header["name"],
            "source": header["source"],
            "base": {"type": "string", "description": "a shipped spec, or a path relative to this file"},
            "choices": {
                "type": "object",
                "description": "spec path -> options; `*` in a path stands for every entry of a list",
                "additionalProperties": {"$ref": f"{REF}choice"},
            },
            **sections,
        },
        "required": ["base", "choices"],
        "additionalProperties": False,
        "definitions": definitions,
    }


def _section(model: type[Any], description: str, definitions: Json) -> Json:
    return {
        "type": ["object", "null"],
        "description": description,
        "properties": properties_of(model, definitions),
        "additionalProperties": False,
    }
