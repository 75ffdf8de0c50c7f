"""JSON Schema (draft 7) of what may be written in YAML, for editors: completion and red lines while typing.

It is made from the models and the registered parts, so a new block is known to it at once.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from archdsl.language.architecture.model import Features, Header
from archdsl.language.architecture.part_reader import DEFAULTED, FIRST_REST, takes_list
from archdsl.language.text import limits
from archdsl.parts.part import Part, PartKind, parts

Json = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
REF = "#/definitions/"


def spec_schema() -> Json:
    """Draft 7, of everything that a spec may hold with the parts that are registered now."""
    definitions: Json = {}
    properties = properties_of(Header, definitions)
    properties["extends"] = {
        "type": "string",
        "description": "the spec to build on: a shipped name, or a path relative to this file",
    }
    properties["defaults"] = {
        "type": "object",
        "description": "values for any field of that name that is not set, but for those of necks",
        "properties": _all_fields(definitions),
        "additionalProperties": False,
    }
    properties["stem"] = _part("stem", definitions)
    properties["features"] = draft7(Features.model_json_schema())
    properties["neck"] = {"type": "array", "maxItems": limits.MAX_STAGES, "items": _part("neck", definitions)}
    properties["head"] = _part("head", definitions)
    properties["heads"] = _heads(definitions)
    said = "one value for the first block, another for the rest"
    definitions["each"] = _object(said, {key: {} for key in FIRST_REST}, required=list(FIRST_REST))
    definitions["stage"] = _stage(definitions)
    definitions["change"] = _change(definitions)
    stages = {"type": "array", "minItems": 1, "maxItems": limits.MAX_STAGES}
    properties["stages"] = {"type": "array"}
    return {
        "$schema": DRAFT,
        "title": "archdsl spec",
        "description": "One vision-transformer architecture.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "if": {"required": ["extends"]},
        "then": {"properties": {"stages": {**stages, "items": {"$ref": REF + "change"}}}},
        "else": {
            "required": ["stem", "stages"],
            "anyOf": [{"required": ["head"]}, {"required": ["heads"]}],
            "properties": {"stages": {**stages, "items": {"$ref": REF + "stage"}}},
        },
        "definitions": definitions,
    }


def properties_of(model: type[BaseModel], definitions: Json) -> Json:
    """Field -> schema of a model; what it refers to goes to `definitions`."""
    whole = draft7(model.model_json_schema())
    definitions.update(whole.get("definitions", {}))
    properties: Json = whole.get("properties", {})
    return properties


def draft7(value: Any) -> Any:
    """pydantic's 2020-12 schema in the words of draft 7; `InputSpec` is defined as `Input`."""
    if isinstance(value, dict):
        out: Json = {}
        for key, item in value.items():
            if (key == "title" and isinstance(item, str)) or key == "discriminator":
                continue
            if key == "prefixItems":
                out["items"] = [draft7(one) for one in item]
            elif key == "$defs":
                out["definitions"] = {name.removesuffix("Spec"): draft7(one) for name, one in item.items()}
            elif key == "$ref":
                out[key] = item.replace("#/$defs/", REF).removesuffix("Spec")
            else:
                out[key] = draft7(item)
        return out
    return [draft7(item) for item in value] if isinstance(value, list) else value


def _fields(cls: type[Part], definitions: Json, *, each: bool = False) -> Json:
    """Field -> schema of one part. each: a list for each block is allowed too."""
    found = properties_of(cls, definitions)
    if not each:
        return found
    many = {"type": "array", "minItems": 1, "maxItems": limits.MAX_DEPTH}
    return {
        name: field
        if takes_list(cls, name)
        else {"anyOf": [_bare(field), {**many, "items": _bare(field)}, {"$ref": f"{REF}each"}], **_described(field)}
        for name, field in found.items()
    }


def _bare(field: Json) -> Json:
    return {key: item for key, item in field.items() if key not in ("default", "description")}


def _described(field: Json) -> Json:
    return {key: item for key, item in field.items() if key in ("default", "description")}


def _summary(cls: type[BaseModel]) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]


def _object(description: str, properties: Json, **rest: Any) -> Json:
    """The schema of a mapping with these keys and no others."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        **rest,
        "additionalProperties": False,
    }


def _one_part(cls: type[Part], key: str, definitions: Json) -> Json:
    return _object(_summary(cls), {key: {"const": cls.type_name}, **_fields(cls, definitions)}, required=[key])


def _part(kind: PartKind, definitions: Json, key: str = "type") -> Json:
    """A part by its bare name or as a mapping; a mapping without `type` changes the part it builds on."""
    known = parts(kind)
    options: list[Json] = [{"enum": sorted(known)}]
    for name, cls in sorted(known.items()):
        definitions[f"{kind}.{name}"] = _one_part(cls, key, definitions)
        options.append({"$ref": f"{REF}{kind}.{name}"})
    fields: Json = {name: {} for cls in known.values() for name in cls.model_fields}
    description = f"fields of the {kind} that this spec builds on"
    definitions[f"{kind}.change"] = _object(description, fields, **{"not": {"required": [key]}})
    options.append({"$ref": f"{REF}{kind}.change"})
    return {"anyOf": options}


def _heads(definitions: Json) -> Json:
    """Output -> head: as `head`, and what it reads, and whether only training reads its output."""
    known = parts("head")
    own: Json = {
        "tap": {"type": ["string", "null"], "description": "what it reads: `features.N`, a stage, a block or `stem`"},
        "train": {"type": "boolean", "description": "whether only training reads its output"},
    }
    options: list[Json] = [{"type": "null"}, {"enum": sorted(known)}]
    for name, cls in sorted(known.items()):
        fields = {"type": {"const": name}, **_fields(cls, definitions), **own}
        definitions[f"heads.{name}"] = _object(_summary(cls), fields, required=["type"])
        options.append({"$ref": f"{REF}heads.{name}"})
    changed: Json = {name: {} for cls in known.values() for name in cls.model_fields}
    description = "fields of the head that this spec builds on"
    definitions["heads.change"] = _object(description, {**changed, **own}, **{"not": {"required": ["type"]}})
    options.append({"$ref": f"{REF}heads.change"})
    return {
        "type": "object",
        "description": "heads by the name of their output",
        "additionalProperties": {"anyOf": options},
    }


def _stage_fields(definitions: Json) -> Json:
    dim = {"type": ["integer", "null"], "minimum": 1, "maximum": limits.MAX_DIM, "description": "width of the stage"}
    return {"dim": dim, "downsample": {"anyOf": [{"type": "null"}, _part("downsample", definitions)]}}


def _stage(definitions: Json) -> Json:
    """`block` + `depth` + its fields (a value, or a list with one for each block), or a list of `blocks`."""
    options: list[Json] = []
    listed: list[Json] = []
    depth = {"type": "integer", "minimum": 1, "maximum": limits.MAX_DEPTH, "description": "number of blocks"}
    for name, cls in sorted(parts("block").items()):
        definitions[f"block.{name}"] = _one_part(cls, "block", definitions)
        listed.append({"$ref": f"{REF}block.{name}"})
        own = {"block": {"const": name}, "depth": depth, **_fields(cls, definitions, each=True)}
        fields = {**_stage_fields(definitions), **own}
        definitions[f"stage.{name}"] = _object(_summary(cls), fields, required=["block", "depth"])
        options.append({"$ref": f"{REF}stage.{name}"})
    blocks = {"type": "array", "minItems": 1, "maxItems": limits.MAX_DEPTH, "items": {"anyOf": listed}}
    fields = {"blocks": blocks, **_stage_fields(definitions)}
    options.append(_object("blocks of different kinds, one by one", fields, required=["blocks"]))
    return {"anyOf": options}


def _change(definitions: Json) -> Json:
    """A stage of a spec that builds on another: only what differs."""
    fields: Json = {name: {} for cls in parts("block").values() for name in cls.model_fields}
    stage: Json = {
        "block": {"enum": sorted(parts("block"))},
        "depth": {"type": "integer", "minimum": 1, "maximum": limits.MAX_DEPTH},
        "blocks": {"type": "array"},
    }
    return _object("what differs in this stage; {} changes nothing", {**_stage_fields(definitions), **fields, **stage})


def _all_fields(definitions: Json) -> Json:
    """Every field of every part, as `defaults` may set it: any form that some part takes."""
    forms: dict[str, list[Json]] = {}
    for kind in DEFAULTED:
        for cls in parts(kind).values():
            for name, field in properties_of(cls, definitions).items():
                form = _bare(field)
                if form not in forms.setdefault(name, []):
                    forms[name].append(form)
    return {name: options[0] if len(options) == 1 else {"anyOf": options} for name, options in sorted(forms.items())}
