"""Reading a mapping that a user wrote into a pydantic model; what is wrong comes back as located problems."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from archdsl.errors import Place, Problem, SpecError

M = TypeVar("M", bound=BaseModel)


def read_fields(model: type[M], values: Mapping[str, Any], place: Place) -> M:
    """`values` as a validated `model`.

    Raises SpecError with one problem for each wrong field: unknown-key (with the nearest known key), missing-key,
    wrong-type or out-of-range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(model, dict(detail), place) for detail in error.errors()]
        raise SpecError(problems) from None


def changed_fields(model: BaseModel, *unsaid: str) -> str:
    """` name=value` for each field that is not the default, without the `unsaid` ones: for people."""
    changed = model.model_dump(exclude_defaults=True, exclude={"type", *unsaid})
    return "".join(f" {name}={value}" for name, value in changed.items())


def unknown_name(what: str, name: str, known: list[str], place: Place) -> SpecError:
    """The error for a name that is in no table: says what was probably meant, and what there is."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
    return SpecError(Problem(place, "unknown-name", f"there is no {what} `{name}`", hint=hint))


def _problem(model: type[BaseModel], detail: dict[str, Any], place: Place) -> Problem:
    path = ".".join(str(step) for step in detail["loc"])
    kind, given = detail["type"], detail["input"]
    known = sorted(model.model_fields)
    if kind == "extra_forbidden":
        near = get_close_matches(path, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
        return Problem(place, "unknown-key", f"`{path}` is not a field of {model.__name__}", hint=hint, path=path)
    if kind == "missing":
        return Problem(place, "missing-key", f"`{path}` must be given", hint=f"add `{path}: …`", path=path)
    rule = "wrong-type" if kind.endswith(("_type", "_parsing")) else "out-of-range"
    message = f"`{path}`: {str(detail['msg'])[:1].lower()}{str(detail['msg'])[1:]}, but got {given!r}"
    default = f"the default is {model.model_fields[path].get_default()!r}" if _has_default(model, path) else None
    return Problem(place, rule, message, hint=default, path=path)


def _has_default(model: type[BaseModel], path: str) -> bool:
    field = model.model_fields.get(path)
    return field is not None and not field.is_required()
