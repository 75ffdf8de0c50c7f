"""Overrides: `stages.2.depth=14` on the command line, `{"stages.2.depth": 14}` in Python.

A path is keys and list indices with dots between them (`stages[2].depth` is the same); `*` stands for every entry of a
list. The value is YAML. It replaces what is there; mappings on the way are made where the base has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from archdsl.errors import SpecError
from archdsl.spec.explain import Complaints
from archdsl.spec.model import PART_SHORTHANDS
from archdsl.spec.node import Mark, Node, Path, Source, check_size, fail, node_of
from archdsl.spec.render import flow, shown
from archdsl.spec.words import quoted
from archdsl.spec.yaml_text import parse

Overrides = Mapping[str, Any] | Sequence[str]

COMMAND_LINE = "--set"
ARGUMENT = "set"
_LONGEST_PATH = 1000
_MOST_STEPS = 32
_DESCRIBING = ("name", "source", "expect")


class Step(NamedTuple):
    """One part of a path and where it was written."""

    name: str
    mark: Mark


class Assignment(NamedTuple):
    """Put `value` at `path`."""

    path: tuple[Step, ...]
    value: Node


def assignments(overrides: Overrides) -> list[Assignment]:
    """Read overrides as given: words `path=value`, or a mapping path -> value.

    Errors: SpecError naming the pseudo-file `--set` (words) or `set` (mapping), the line being the override's number
    """
    found: list[Assignment] = []
    complaints = Complaints()
    items: list[Any] = [overrides] if isinstance(overrides, str) else list(overrides)
    for number, item in enumerate(items, 1):
        try:
            found.append(
                _of_item(item, overrides[item], number) if isinstance(overrides, Mapping) else _of_word(item, number)
            )
        except SpecError as error:
            complaints.take(error)
    problems = complaints.error()
    if problems is not None:
        raise problems
    return found


def override(tree: Node, overrides: Overrides) -> Node:
    """The tree with all overrides applied in order. A changed network is no longer what `expect` describes."""
    complaints = Complaints()
    given = assignments(overrides)
    names = {assignment.path[0].name for assignment in given}
    for assignment in given:
        try:
            if assignment.path[0].name == "extends":
                raise fail(assignment.path[0].mark, "extends", "`extends` can only be set in a file")
            tree = check_size(put(tree, assignment.path, assignment.value))
        except SpecError as error:
            complaints.take(error)
    problems = complaints.error()
    if problems is not None:
        raise problems
    if names - set(_DESCRIBING) and "expect" not in names and tree.get("expect") is not None:
        rest = {key: value for key, value in tree.value.items() if key != "expect"}
        tree = Node.mapping(rest, tree.keys or {}, tree.mark)
    return tree


def steps_of(text: str, mark: Callable[[int, int], Mark]) -> tuple[Step, ...]:
    """The parts of a path. mark(start, width) gives the place of a stretch of `text`."""
    if len(text) > _LONGEST_PATH:
        raise fail(mark(0, 1), "limit", f"a path may have at most {_LONGEST_PATH} characters")
    plain = re.sub(r"\[(\d{1,9}|\*)\]", lambda match: f".{match[1]} ", text)  # same length, so that columns stay right
    steps, start = [], 0
    for piece in plain.split("."):
        name = piece.strip()
        if not name:
            raise fail(
                mark(start, 1),
                "wrong-value",
                f"the path {quoted(text)} has an empty part",
                "write it like stages.2.depth",
            )
        steps.append(Step(name, mark(start + piece.index(name), len(name))))
        start += len(piece) + 1
    if len(steps) > _MOST_STEPS:
        raise fail(steps[_MOST_STEPS].mark, "limit", f"a path may have at most {_MOST_STEPS} parts")
    return tuple(steps)


def put(tree: Node, path: Sequence[Step], value: Node) -> Node:
    """A tree with `value` at `path`; a `*` puts it at every entry of a list."""
    return change(tree, path, lambda old: value)


def change(tree: Node, path: Sequence[Step], new: Callable[[Node | None], Node], done: Path = ()) -> Node:
    """A tree whose value at `path` (None if there is none) is replaced by `new(value)`; the rest is shared."""
    if not path:
        return new(tree)
    (name, mark), rest = path[0], path[1:]
    if tree.is_list:
        chosen = indices(tree, path[0], done)
        items = [change(item, rest, new, (*done, i)) if i in chosen else item for i, item in enumerate(tree.value)]
        return Node.sequence(items, tree.mark)
    if tree.is_map:
        if name == "*":
            raise fail(mark, "unknown-key", f"`*` stands for the entries of a list, but {_called(done)} is a mapping")
        items_by_key, keys = dict(tree.value), dict(tree.keys or {})
        below = items_by_key.get(name)
        if rest and (below is None or below.value is None):
            below = Node.mapping({}, {}, mark)
        if rest and below is not None and name in PART_SHORTHANDS and isinstance(below.value, str):
            below = Node.mapping({"type": below}, {"type": below.mark}, below.mark)
        if not rest:
            items_by_key[name] = new(below)
            keys[name] = mark
        else:
            assert below is not None
            items_by_key[name] = change(below, rest, new, (*done, name))
            keys.setdefault(name, mark)
        return Node.mapping(items_by_key, keys, tree.mark)
    raise fail(mark, "unknown-key", f"{_called(done)} is {shown(tree.plain())}, and has nothing called {quoted(name)}")


def indices(tree: Node, step: Step, done: Path = ()) -> set[int]:
    """Which entries of a list a step names."""
    length = len(tree.value)
    if step.name == "*":
        return set(range(length))
    if not step.name.isdecimal():
        message = f"{_called(done)} is a list: name an entry by its number or all by `*`, but got {quoted(step.name)}"
        raise fail(step.mark, "unknown-key", message)
    if len(step.name) > 9 or int(step.name) >= length:
        entries = f"it has entries 0 to {length - 1}" if length else "it has none"
        raise fail(step.mark, "unknown-key", f"{_called(done)} has no entry {quoted(step.name)}; {entries}")
    return {int(step.name)}


def _called(path: Path) -> str:
    return f"`{'.'.join(str(part) for part in path)}`" if path else "the spec"


def _of_word(word: Any, number: int) -> Assignment:
    """`path=value`; the value is parsed in place, so that its marks are columns of the word."""
    if not isinstance(word, str):
        raise fail(
            Source(COMMAND_LINE, (), number).mark(),
            "wrong-type",
            f"an override is text like path=value, but got {type(word).__name__}",
        )
    source = Source(COMMAND_LINE, tuple(re.split("\r\n|[\n\r\x85\u2028\u2029]", word)), number)
    name, equals, text = word.partition("=")
    if not equals or not name.strip():
        raise fail(
            source.mark(width=max(1, len(source.lines[0]))),
            "syntax",
            f"an override is written path=value, but got {quoted(word)}",
            "for example stages.2.depth=14",
        )
    steps = steps_of(name, lambda start, width: source.mark(0, start, width))
    if not text.strip():
        return Assignment(steps, Node(None, source.mark(0, len(name), 1)))
    return Assignment(steps, parse(" " * (len(name) + 1) + text, COMMAND_LINE, source=source))


def _of_item(key: Any, value: Any, number: int) -> Assignment:
    """A path and a Python value."""
    if not isinstance(key, str):
        raise fail(
            Source(ARGUMENT, (), number).mark(), "wrong-type", f"a path must be text, but got {type(key).__name__}"
        )
    spot = Source(ARGUMENT, (f"{key}=",), number).mark(0, len(key) + 1)
    text = flow(node_of(value, spot).plain())
    source = Source(ARGUMENT, (f"{key}={text}",), number)
    if not key.strip():
        raise fail(source.mark(), "wrong-value", "the path is empty")
    steps = steps_of(key, lambda start, width: source.mark(0, start, width))
    return Assignment(steps, node_of(value, source.mark(0, len(key) + 1, len(text))))
