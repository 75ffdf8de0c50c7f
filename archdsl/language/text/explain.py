"""What pydantic found, in plain English and at the right token."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from archdsl.errors import Problem, SpecError
from archdsl.language.text import limits
from archdsl.language.text.node import Mark, NameOfFile, Path, YamlNode, dotted
from archdsl.language.text.render import shown
from archdsl.language.text.words import NAME, joined, listed, quoted
from archdsl.suggestions import closest, did_you_mean

_WANTED: dict[str, str] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number that fits in 64 bits",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_LENGTHS = {
    "too_short": "a list of at least {min_length} values",
    "too_long": "a list of at most {max_length} values",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
}
_OURS = {"count": "wrong-type", "duration": "wrong-type", "bytes": "wrong-type", "count_limit": "limit"}

SUGGESTED = 50
"""Problems after which no more suggestions are made: comparing words is slow, and nobody reads so many."""


class Complaints:
    """The problems found so far; the same thing at the same place is said once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, int, str, str], Problem] = {}
        self._places: set[tuple[str, int, int]] = set()

    def __len__(self) -> int:
        return len(self._found)

    @property
    def full(self) -> bool:
        """Whether so many problems were found that further ones are dropped."""
        return len(self._found) >= limits.MAX_PROBLEMS

    def add(self, mark: Mark, rule: str, message: str, hint: str | None = None, path: Path = ()) -> None:
        """Add a problem at a mark; path: of the value in the spec."""
        self.put(Problem(mark.place(), rule, message, hint, dotted(path) or None))

    def must_be(
        self, wanted: str, node: YamlNode, path: Path, *, rule: str = "wrong-type", hint: str | None = None
    ) -> None:
        """Add that the value at a path is not what it must be."""
        self.add(node.mark, rule, f"`{path[-1]}` must be {wanted}, but got {shown(node.plain())}", hint, path)

    def missing(self, node: YamlNode, why: str, path: Path, hint: str | None = None) -> None:
        """Add that the key at the end of a path is missing in the mapping `node`."""
        self.add(node.mark, "missing-key", f"`{path[-1]}` is missing: {why}", hint, path)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Add all problems of the SpecError that the block raises, if it raises one, and go on after the block."""
        try:
            yield
        except SpecError as error:
            self.take(error)

    def take(self, error: SpecError) -> None:
        """Add all problems of an error."""
        for problem in error.problems:
            self.put(problem)

    def put(self, problem: Problem) -> None:
        """Add a problem, unless the same one is there."""
        if not self.full:
            place = problem.place
            self._found.setdefault((place.file, place.line, place.column, problem.rule, problem.message), problem)
            self._places.add((place.file, place.line, place.column))

    def has(self, mark: Mark) -> bool:
        """Whether something is already wrong at this place."""
        place = mark.place()
        return (place.file, place.line, place.column) in self._places

    def unknown_key(self, node: YamlNode, key: str, names: Collection[str], what: str, path: Path) -> None:
        """Add an unknown key of a mapping.

        names: the known keys, of which the closest is the hint
        what:  that has those keys, as the subject of a sentence
        """
        if self.full:
            return
        hint = None
        if len(self) < SUGGESTED:
            hint = joined(did_you_mean(key, names), f"{what} has: {listed(names)}." if names else None)
        self.add(node.key_mark(key), "unknown-key", f"unknown key {quoted(key)}", hint, (*path, key))

    def raise_if_any(self, first_file: str | None = None) -> None:
        """Raise all problems as one SpecError, by file (`first_file` first), line and column."""
        if self._found:
            place = attrgetter("place.file", "place.line", "place.column")
            raise SpecError(sorted(self._found.values(), key=lambda p: (p.place.file != first_file, place(p))))


def rule_of(kind: str) -> str:
    """The rule that a pydantic error of a kind (`int_type`, `missing`, …) breaks."""
    words = {"missing": "missing-key", "extra_forbidden": "unknown-key", "value_error": "wrong-value"}
    return words.get(kind) or ("wrong-type" if kind.endswith(("_type", "_parsing")) else "out-of-range")


_RULE = "rule:"


def broken(rule: str, message: str, *, field: str = "") -> PydanticCustomError:
    """What a validator of a plain model raises when a rule of ours is broken, so that it is said at `field`."""
    return PydanticCustomError(_RULE + rule, "{message}", {"message": message, "field": field})


def explain(
    complaints: Complaints,
    errors: Sequence[Mapping[str, Any]],
    homes: Mapping[str, tuple[YamlNode, Path]],
    owner: YamlNode,
    path: Path,
    *,
    cls: type[BaseModel],
    what: str,
    said: str = "",
) -> None:
    """Add one problem for each place that pydantic found wrong.

    errors: `ValidationError.errors()`
    homes: for each field, the node it came from and its path (a field may come from elsewhere, such as `defaults`)
    owner, path: the mapping that the model was read from
    cls: the model; what: how it is called in a sentence (``a `swin` block``)
    said: added to a message, e.g. which part wanted the value; then a value that is already wrong is not said again
    """
    groups: dict[tuple[int, Path], list[Mapping[str, Any]]] = {}
    spots: dict[tuple[int, Path], tuple[YamlNode, Path]] = {}
    misspelt = {
        (error["loc"][:-1], closest(str(error["loc"][-1]), [str(other["loc"][-1])]))
        for error in errors[:SUGGESTED]
        if error["type"] == "extra_forbidden"
        for other in errors[:SUGGESTED]
        if other["type"] == "missing" and other["loc"][:-1] == error["loc"][:-1]
    }
    for error in errors:
        if complaints.full:
            return
        kind, loc = error["type"], tuple(error["loc"])
        is_key = kind in ("missing", "extra_forbidden")
        if kind.startswith(_RULE) and error["ctx"]["field"]:
            loc = (*loc, error["ctx"]["field"])
        node, where = _descend(loc[:-1] if is_key else loc, homes, owner, path)
        if kind == "missing":
            name = str(loc[-1])
            if (loc[:-1], name) in misspelt:
                continue
            parent = what if where == path else f"`{where[-1]}`"
            complaints.missing(node, f"{parent} needs it", (*where, name))
        elif kind == "extra_forbidden":
            inner = f"`{where[-1]}`" if where != path else what[0].upper() + what[1:]
            names = _fields_at(cls, where[len(path) :])
            complaints.unknown_key(node, str(error["loc"][-1]), names, inner, where)
        else:
            groups.setdefault((id(node), where), []).append(error)
            spots[id(node), where] = (node, where)
    for key, group in groups.items():
        node, where = spots[key]
        rule, message, hint = _sentence(group, _name_of(where, path) if where else what, node)
        if isinstance(node, NameOfFile):
            message = f"no `name` is written, and the name of the file cannot be one: {message}"
            hint = f"write `name: {_near_name(node.value)}`, or rename the file"
        if not (said and complaints.has(node.mark)):
            complaints.add(node.mark, rule, message + said, hint, where)


def _fields_at(cls: type[BaseModel], path: Path) -> Collection[str]:
    """The fields of the model at a path inside a model; none when there is no model."""
    for part in path:
        field = cls.model_fields.get(str(part))
        pending = [field.annotation] if field is not None else []
        found = None
        while pending and found is None:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                found = annotation
            pending += get_args(annotation)
        if found is None:
            return ()
        cls = found
    return cls.model_fields


def _descend(
    loc: Sequence[str | int], homes: Mapping[str, tuple[YamlNode, Path]], owner: YamlNode, path: Path
) -> tuple[YamlNode, Path]:
    """The deepest node that a pydantic location names; segments that name no node (unions, tags) are skipped."""
    if not loc or str(loc[0]) not in homes:
        return owner, path
    node, where = homes[str(loc[0])]
    for part in loc[1:]:
        below = node.child(part)
        if below is not None:
            node, where = below, (*where, part)
    return node, where


def _name_of(where: Path, path: Path) -> str:
    """`window`, or `window[1]` for something inside a list."""
    names = where[len(path) :] or where[-1:]
    text = ""
    for part in names:
        text += f"[{part}]" if isinstance(part, int) and text else f".{part}" if text else str(part)
    return f"`{text}`"


def _sentence(group: Sequence[Mapping[str, Any]], name: str, node: YamlNode) -> tuple[str, str, str | None]:
    """(rule, message, hint) for all that pydantic says about one value: a value of a union gives one sentence."""
    wanted: list[str] = []
    rules: list[str] = []
    hints: list[str] = []
    options: list[str] = []
    for error in group:
        rule, want, free = _want(error)
        if free is not None:
            return rule, free if error["type"].startswith(_RULE) else f"{name}: {free}", None
        rules.append(rule)
        if want not in wanted:
            wanted.append(want)
        if error["type"] in ("literal_error", "enum"):
            options += re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
    value = node.value
    message = f"{name} must be {' or '.join(wanted)}, but got {shown(node.plain())}"
    if isinstance(value, str):
        hints += [hint for hint in (did_you_mean(value, options), _hint_for_text(value, wanted)) if hint]
    if "out-of-range" in rules:
        rule = "out-of-range"
    else:
        rule = "wrong-value" if options and isinstance(value, str) else rules[0]
    return rule, message, joined(*hints)


def _hint_for_text(value: str, wanted: Sequence[str]) -> str | None:
    if "true or false" in wanted and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return f"write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}."
    if any("number" in want for want in wanted) and re.fullmatch(r"[-+]?[0-9._]+", value):
        return "leave the quotes out."
    return None


def _want(error: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """(rule, what the value must be, or a free sentence) of one pydantic error."""
    kind, ctx = error["type"], error.get("ctx", {})
    if kind.startswith(_RULE):
        return kind.removeprefix(_RULE), "", error["msg"]
    if kind in _WANTED:
        return "wrong-type", _WANTED[kind], None
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return "out-of-range", f"{words} {_tidy(ctx[key])}", None
    if kind in _LENGTHS:
        return "length", _LENGTHS[kind].format(**ctx), None
    if kind in ("literal_error", "enum"):
        options = re.findall(r"'([^']*)'", str(ctx["expected"])) or [str(ctx["expected"])]
        return "wrong-value", ("one of " if len(options) > 1 else "") + ", ".join(f"`{word}`" for word in options), None
    if kind == "string_pattern_mismatch" and ctx["pattern"] == NAME:
        return "wrong-value", "letters, digits and `_.+-`, with none of `.+-` first", None
    if kind == "string_pattern_mismatch":
        return "wrong-value", f"text that matches {ctx['pattern']}", None
    if kind in _OURS:
        return _OURS[kind], error["msg"], None
    message = str(error["msg"])
    if message.startswith("Input should be "):
        return "wrong-value", message.removeprefix("Input should be "), None
    for start in ("Value error, ", "Assertion failed, "):
        if message.startswith(start):
            return "wrong-value", "", message.removeprefix(start)
    return "wrong-value", "", message[:1].lower() + message[1:]


def _near_name(text: str) -> str:
    """A text as a name that is allowed."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).lstrip(".+-")[:40] or "mine"


def _tidy(bound: Any) -> str:
    return str(int(bound)) if isinstance(bound, float) and bound.is_integer() and abs(bound) < 1e15 else str(bound)
