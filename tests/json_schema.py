"""As much of JSON Schema draft 7 as ours uses, for tests on machines without the `jsonschema` package."""

from __future__ import annotations

import re
from typing import Any


def fits(value: Any, part: Any, whole: dict[str, Any]) -> bool:
    """The few words of draft 7 that the schema uses."""
    if "$ref" in part:
        part = {
            **whole["definitions"][part["$ref"].rsplit("/", 1)[1]],
            **{k: v for k, v in part.items() if k != "$ref"},
        }
    known = {"$schema", "title", "description", "default", "definitions", "type", "properties", "additionalProperties",
             "required", "anyOf", "enum", "const", "items", "minItems", "maxItems", "minimum", "maximum", "pattern",
             "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "if", "then", "else", "not"}  # fmt: skip
    assert set(part) <= known, set(part) - known
    kinds = part.get("type", [])
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    checks = []
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        whole_number = is_number and float(value).is_integer()
        checks.append(
            is_number if kind == "number" else whole_number if kind == "integer" else isinstance(value, types[kind])
        )
    good = not checks or any(checks)
    if "anyOf" in part:
        good &= any(fits(value, one, whole) for one in part["anyOf"])
    if "if" in part:
        good &= fits(value, part["then" if fits(value, part["if"], whole) else "else"], whole)
    good &= "not" not in part or not fits(value, part["not"], whole)
    good &= "enum" not in part or value in part["enum"]
    good &= "const" not in part or value == part["const"]
    if isinstance(value, dict):
        good &= all(key in value for key in part.get("required", ()))
        for key, item in value.items():
            inner = part.get("properties", {}).get(key, part.get("additionalProperties", True))
            good &= inner if isinstance(inner, bool) else fits(item, inner, whole)
    if isinstance(value, list):
        good &= part.get("minItems", 0) <= len(value) <= part.get("maxItems", 1 << 60)
        if isinstance(part.get("items"), list):
            good &= all(fits(item, one, whole) for item, one in zip(value, part["items"], strict=False))
        elif "items" in part:
            good &= all(fits(item, part["items"], whole) for item in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        good &= part.get("minimum", value) <= value <= part.get("maximum", value)
        good &= part.get("exclusiveMinimum", value - 1) < value < part.get("exclusiveMaximum", value + 1)
    if isinstance(value, str) and "pattern" in part:
        good &= re.search(part["pattern"], value) is not None
    return good


def valid_by_schema(value: Any, whole: dict[str, Any]) -> bool:
    """Whether a value is valid; by the `jsonschema` package where it is installed."""
    try:
        import jsonschema
    except ImportError:
        return fits(value, whole, whole)
    return jsonschema.Draft7Validator(whole).is_valid(value)
