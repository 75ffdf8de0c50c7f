"""Reading parts: fields as written (a scalar for all blocks, a list for each, defaults) -> validated part objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from archdsl.errors import RuleBroken
from archdsl.language.text import limits
from archdsl.language.text.explain import SUGGESTED, Complaints, explain
from archdsl.language.text.node import Path, YamlNode, is_finite
from archdsl.language.text.render import shown
from archdsl.language.text.words import joined, listed, quoted
from archdsl.parts.part import Part, PartKind, parts
from archdsl.parts.plugin_code import run_part
from archdsl.suggestions import closest, did_you_mean

STAGE_KEYS = ("block", "depth", "blocks", "dim", "downsample")
"""Keys of a stage that are the stage's own, not its blocks'; but see `blocks_take_dim`."""

DEFAULTED: tuple[PartKind, ...] = ("stem", "block", "downsample", "head")
"""Kinds of parts whose fields `defaults` sets. A neck has norms and activations of its own design."""
FIRST_REST = ("first", "rest")
"""Keys of a value that the first block of a stage has of its own: `{first: 1, rest: 2}`."""


def blocks_take_dim(cls: type[Part], stage: YamlNode) -> bool:
    """Whether a stage's `dim` is the width of its blocks: they take one, and nothing before them in the stage does."""
    downsample = stage.get("downsample")
    return "dim" in cls.model_fields and (downsample is None or downsample.value is None)


_Field = tuple[Any, YamlNode, Path]
"""The plain value of a field of a part, its node and its path."""
_Fields = dict[str, _Field]


class PartReader:
    """Reads the parts of one spec; problems go to `complaints`."""

    def __init__(self, complaints: Complaints, defaults: YamlNode | None):
        self.complaints = complaints
        self.defaults = defaults if defaults is not None and defaults.is_map else None

    def kind_of(self, kind: PartKind, node: YamlNode, path: Path, key: str) -> type[Part] | None:
        """The class of the part that the mapping `node` names under `key` (`block` or `type`)."""
        name = node.get(key)
        if name is None:
            if not self.misspelt(node, key, path, "It"):
                self.complaints.missing(node, f"it names the {kind}", (*path, key), _available(kind))
            return None
        return self.class_of(kind, name, (*path, key))

    def misspelt(self, node: YamlNode, key: str, path: Path, what: str) -> bool:
        """Whether a missing key is there under a wrong spelling; if so, say so."""
        near = next((other for other in node.value if other not in STAGE_KEYS and closest(other, [key]) == key), None)
        if near is not None:
            self.complaints.unknown_key(node, near, [key], what, path)
        return near is not None

    def class_of(self, kind: PartKind, name: YamlNode, path: Path) -> type[Part] | None:
        """The class that a name stands for."""
        known = parts(kind)
        if not isinstance(name.value, str):
            self.complaints.must_be(f"the name of a {kind}", name, path, hint=_available(kind))
            return None
        if name.value not in known:
            hint = joined(did_you_mean(name.value, known), _available(kind))
            message = f"there is no {kind} called {quoted(name.value)}"
            self.complaints.add(name.mark, "unknown-name", message, hint, path)
            return None
        return known[name.value]

    def one(self, kind: PartKind, node: YamlNode, path: Path, key: str = "type") -> Part | None:
        """A stem, head, downsampling or single block: a bare name, or a mapping with the name under `key`."""
        if isinstance(node.value, str):
            cls = self.class_of(kind, node, path)
            own: dict[str, YamlNode] = {}
        elif node.is_map:
            cls = self.kind_of(kind, node, path, key)
            own = node.without(key).value
        else:
            self.complaints.must_be(f"a mapping or the name of a {kind}", node, path, hint=_available(kind))
            return None
        if cls is None:
            return None
        what = f"a `{cls.type_name}` {kind}"
        given, lost = self._known_fields(cls, own, node, path, what=what)
        found = self._validate(cls, [given], node, path, what=what, lost=lost)
        return found[0] if found else None

    def many(self, cls: type[Part], node: YamlNode, depth: int | None, path: Path) -> list[Part] | None:
        """`depth` blocks of one class from the fields of a stage; a list is one value for each block.

        Without a depth (which is wrong then) nothing can come of it, but all fields that are no lists are looked at.
        """
        what = f"a `{cls.type_name}` block"
        own = node.without(*(key for key in STAGE_KEYS if key != "dim" or not blocks_take_dim(cls, node))).value
        rows: list[_Fields] = [{} for _ in range(depth or 1)]
        given, lost = self._known_fields(cls, own, node, path, what=what, stage=True)
        for name, (_, value, where) in given.items():
            is_each = depth is None and value.is_list
            spread = None if is_each else self._spread(cls, name, value, where, depth or 1)
            if spread is None:
                lost.add(name)
                continue
            for row, entry in zip(rows, spread, strict=True):
                row[name] = entry
        return self._validate(cls, rows, node, path, what=what, lost=lost)

    def _known_fields(
        self,
        cls: type[Part],
        own: Mapping[str, YamlNode],
        node: YamlNode,
        path: Path,
        *,
        what: str,
        stage: bool = False,
    ) -> tuple[_Fields, set[str]]:
        """What the part sets itself, then what `defaults` adds.

        Also the fields that were set but are lost (misspelt, or beyond a limit), so that nobody calls them missing.
        """
        fields = cls.model_fields
        lost: set[str] = set()
        given: _Fields = {}
        for name, value in own.items():
            where = (*path, name)
            if name not in fields:
                extra = [key for key in STAGE_KEYS if key != "blocks"] if stage else []
                self.complaints.unknown_key(node, name, [*fields, *extra], what[0].upper() + what[1:], path)
                if len(self.complaints) < SUGGESTED:
                    lost.add(closest(name, fields) or "")
            else:
                given[name] = (value.plain(), value, where)
        defaults = self.defaults if cls.kind in DEFAULTED else None
        for name, value in (defaults.value if defaults is not None else {}).items():
            if name in fields and name not in own:
                given[name] = (value.plain(), value, ("defaults", name))
        beyond = {name for name, entry in given.items() if not self._is_bounded(name, entry[1], entry[2])}
        return {name: entry for name, entry in given.items() if name not in beyond}, lost | beyond

    def _is_bounded(self, name: str, node: YamlNode, where: Path) -> bool:
        """Whether a value is small enough to be looked at; if not, say so."""
        if self._is_too_large(name, node, where, num_values=limits.MAX_DEPTH if node.is_list else 1):
            return False
        bound = limits.MAX_CLASSES if name == "classes" else limits.MAX_DIM
        good = True
        for below, leaf in node.scalars(where):
            value = leaf.value
            if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= bound:
                wanted = f"at most {bound:_}" if is_finite(value) else "a finite number"
                message = f"`{name}` must be {wanted}, but got {shown(value)}"
                rule = "limit" if is_finite(value) else "wrong-value"
                self.complaints.add(leaf.mark, rule, message, None, below)
                good = False
        return good

    def _is_too_large(self, name: str, node: YamlNode, where: Path, *, num_values: int = 1) -> bool:
        """Whether a field, given as so many values, holds more than the limit for each; if so, say so."""
        too_large = node.size > limits.MAX_FIELD_NODES * num_values
        if too_large:
            message = f"`{name}` may hold at most {limits.MAX_FIELD_NODES} values"
            self.complaints.add(node.mark, "limit", message, None, where)
        return too_large

    def _spread(self, cls: type[Part], name: str, node: YamlNode, where: Path, depth: int) -> list[_Field] | None:
        """One (value, node, path) for each block."""
        if node.is_list and (not takes_list(cls, name) or (node.value and all(item.is_list for item in node.value))):
            if len(node.value) != depth:
                rule = "a list for each block must have one value per block"
                message = f"{rule}: depth is {depth}, but `{name}` has {len(node.value)}"
                hint = f"write {depth} values, or one value for all blocks"
                self.complaints.add(node.mark, "length", message, hint, where)
                return None
            return [(item.plain(), item, (*where, index)) for index, item in enumerate(node.value)]
        if self._is_too_large(name, node, where):
            return None
        if node.is_map and node.value.keys() == set(FIRST_REST):
            first, rest = ((node.value[key].plain(), node.value[key], (*where, key)) for key in FIRST_REST)
            return [first] + [rest] * (depth - 1)
        value = node.plain()
        try:
            values = run_part(cls, f"`spread` of `{cls.type_name}`", lambda: _spread_values(cls, name, value, depth))
        except RuleBroken as broken:
            self.complaints.add(node.mark, broken.rule, f"`{name}`: {broken.message}", broken.hint, where)
            return None
        return [(item, node, where) for item in values]

    def _validate(
        self, cls: type[Part], rows: Sequence[_Fields], node: YamlNode, path: Path, *, what: str, lost: set[str]
    ) -> list[Part] | None:
        """A part for each row of fields; None when any of them is wrong."""
        done: list[Part] = []
        seen: set[tuple[str, tuple[int, ...]]] = set()
        for row in rows:
            text = json.dumps({name: entry[0] for name, entry in row.items()}, sort_keys=True)
            outcome = _checked(cls, text)
            if isinstance(outcome, Part):
                done.append(outcome)
                continue
            key = (text, tuple(id(entry[1]) for entry in row.values()))
            if key in seen or self.complaints.full:
                continue
            seen.add(key)
            if isinstance(outcome, RuleBroken):
                home = row.get(outcome.field or "")
                mark, where = (home[1].mark, home[2]) if home else (node.mark, path)
                self.complaints.add(mark, outcome.rule, outcome.message, outcome.hint, where)
                continue
            errors = [error for error in outcome if not (error["type"] == "missing" and error["loc"][-1] in lost)]
            homes = {name: (entry[1], entry[2]) for name, entry in row.items()}
            for said, mine in ((f" (wanted by {what})", False), ("", True)):  # a value of `defaults` says who wants it
                some = [error for error in errors if mine != _is_default(error, row)]
                explain(self.complaints, some, homes, node, path, cls=cls, what=what, said=said)
        return done if len(done) == len(rows) and not lost else None


def _spread_values(cls: type[Part], name: str, value: Any, depth: int) -> Sequence[Any]:
    """Raises: RuleBroken where the values are not one for each block; what the part raises"""
    try:
        values = cls.spread(name, value, depth)
    except (TypeError, ValueError, KeyError, AttributeError):
        return [value] * depth  # a value that cannot be spread is not valid; validation says how
    if not isinstance(values, Sequence) or len(values) != depth:
        message = (
            f"`spread` of `{cls.type_name}` must return one value for each of {depth} blocks, but got {values!r:.80}"
        )
        raise RuleBroken(message, rule="plugin")
    return values


def _available(kind: PartKind) -> str:
    return f"Available: {listed(parts(kind))}."


def _is_default(error: ErrorDetails, row: _Fields) -> bool:
    home = row.get(str(error["loc"][0])) if error["loc"] else None
    return home is not None and home[2][0] == "defaults"


@lru_cache(maxsize=16_384)
def _checked(cls: type[Part], text: str) -> Part | RuleBroken | list[ErrorDetails]:
    """A part from the JSON of its fields, or what is wrong with it. JSON, so that a strict tuple may come as a list."""

    def checked() -> Part | list[ErrorDetails]:
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            return error.errors(include_url=False, include_input=False)

    try:
        return run_part(cls, f"the check of the fields of `{cls.type_name}`", checked)
    except RuleBroken as broken:
        return broken


@lru_cache(maxsize=4096)
def takes_list(cls: type[Part], name: str) -> bool:
    """Whether one value of this field is itself a list."""
    schema = cls.model_json_schema()
    pending = [schema["properties"].get(name, {})]
    while pending:
        part = pending.pop()
        if part.get("type") == "array":
            return True
        pending += [*part.get("anyOf", ()), *part.get("oneOf", ())]
        if "$ref" in part:
            pending.append(schema.get("$defs", {}).get(part["$ref"].rsplit("/", 1)[-1], {}))
    return False
