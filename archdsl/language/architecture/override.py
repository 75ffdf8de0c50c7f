"""Overrides: `stages.2.depth=14` on the command line, `{"stages.2.depth": 14}` in Python.

A path is keys and list indices with dots between them (`stages[2].depth` is the same); `*` stands for every entry of a
list. The value is YAML. It replaces what is there; mappings on the way are made where the base has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from archdsl.language.architecture.model import spelt_out
from archdsl.language.text.explain import Complaints
from archdsl.language.text.node import Mark, Path, SourceText, YamlNode, check_size, fail, node_of
from archdsl.language.text.render import flow, shown
from archdsl.language.text.words import quoted
from archdsl.language.text.yaml_text import parse

Overrides = Mapping[str, Any] | Sequence[str]

COMMAND_LINE = "--set"
ARGUMENT = "set"
_LONGEST_PATH = 1000
_MOST_STEPS = 32
DESCRIBING_THE_NETWORK = ("expect", "trained_on")
"""Keys that are true of one network only."""
_DESCRIBING = ("name", "source", *DESCRIBING_THE_NETWORK)


class PathStep(NamedTuple):
    """One part of a path and where it was written."""

    name: str
    mark: Mark


class Override(NamedTuple):
    """Put `value` at `path`."""

    path: tuple[PathStep, ...]
    value: YamlNode


def read_overrides(overrides: Overrides) -> list[Override]:
    """Read overrides as given: words `path=value`, or a mapping path -> value.

    Raises: SpecError naming the pseudo-file `--set` (words) or `set` (mapping), the line being the override's number
    """
    found: list[Override] = []
    complaints = Complaints()
    items: list[Any] = [overrides] if isinstance(overrides, str) else list(overrides)
    for number, item in enumerate(items, 1):
        with complaints.taking():
            is_item = isinstance(overrides, Mapping)
            found.append(_of_item(item, overrides[item], number) if is_item else _of_word(item, number))
    complaints.raise_if_any()
    return found


def override(tree: YamlNode, overrides: Overrides) -> YamlNode:
    """The tree with all overrides applied in order. A changed network is no longer what `expect` and `trained_on`
    describe.
    """
    complaints = Complaints()
    given = read_overrides(overrides)
    names = {item.path[0].name for item in given}
    for item in given:
        with complaints.taking():
            if item.path[0].name == "extends":
                raise fail(item.path[0].mark, "extends", "`extends` can only be set in a file")
            tree = check_size(put(tree, item.path, item.value))
    complaints.raise_if_any()
    stale = [key for key in DESCRIBING_THE_NETWORK if key not in names] if names - set(_DESCRIBING) else []
    return tree.without(*stale)


def steps_of(text: str, mark: Callable[[int, int], Mark]) -> tuple[PathStep, ...]:
    """The parts of a path. mark(start, width) gives the place of a stretch of `text`."""
    if len(text) > _LONGEST_PATH:
        raise fail(mark(0, 1), "limit", f"a path may have at most {_LONGEST_PATH} characters")
    plain = re.sub(r"\[(\d{1,9}|\*)\]", lambda match: f".{match[1]} ", text)  # same length, so that columns stay right
    steps, start = [], 0
    for piece in plain.split("."):
        name = piece.strip()
        if not name:
            message = f"the path {quoted(text)} has an empty part"
            raise fail(mark(start, 1), "wrong-value", message, "write it like stages.2.depth")
        steps.append(PathStep(name, mark(start + piece.index(name), len(name))))
        start += len(piece) + 1
    if len(steps) > _MOST_STEPS:
        raise fail(steps[_MOST_STEPS].mark, "limit", f"a path may have at most {_MOST_STEPS} parts")
    return tuple(steps)


def put(tree: YamlNode, path: Sequence[PathStep], value: YamlNode) -> YamlNode:
    """A tree with `value` at `path`; a `*` puts it at every entry of a list."""
    return change(tree, path, lambda old: value)


def change(
    tree: YamlNode, path: Sequence[PathStep], new: Callable[[YamlNode | None], YamlNode], done: Path = ()
) -> YamlNode:
    """A tree whose value at `path` (None if there is none) is replaced by `new(value)`; the rest is shared."""
    if not path:
        return new(tree)
    (name, mark), rest = path[0], path[1:]
    if tree.is_list:
        chosen = indices(tree, path[0], done)
        items = [change(item, rest, new, (*done, i)) if i in chosen else item for i, item in enumerate(tree.value)]
        return YamlNode.sequence(items, tree.mark)
    if tree.is_map:
        if name == "*":
            raise fail(mark, "unknown-key", f"`*` stands for the entries of a list, but {_called(done)} is a mapping")
        items_by_key, keys = dict(tree.value), dict(tree.keys or {})
        below = items_by_key.get(name)
        if rest and (below is None or below.value is None):
            below = YamlNode.mapping({}, {}, mark)
        if not rest:
            items_by_key[name] = new(below)
            keys[name] = mark
        else:
            assert below is not None
            items_by_key[name] = change(spelt_out(below, name), rest, new, (*done, name))
            keys.setdefault(name, mark)
        return YamlNode.mapping(items_by_key, keys, tree.mark)
    raise fail(mark, "unknown-key", f"{_called(done)} is {shown(tree.plain())}, and has nothing called {quoted(name)}")


def indices(tree: YamlNode, step: PathStep, done: Path = ()) -> set[int]:
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


def _of_word(word: Any, number: int) -> Override:
    """`path=value`; the value is parsed in place, so that its marks are columns of the word."""
    if not isinstance(word, str):
        message = f"an override is text like path=value, but got {type(word).__name__}"
        raise fail(SourceText(COMMAND_LINE, (), number).mark(), "wrong-type", message)
    source = SourceText(COMMAND_LINE, tuple(re.split("\r\n|[\n\r\x85\u2028\u2029]", word)), number)
    name, equals, text = word.partition("=")
    if not equals or not name.strip():
        message = f"an override is written path=value, but got {quoted(word)}"
        mark = source.mark(width=max(1, len(source.lines[0])))
        raise fail(mark, "syntax", message, "for example stages.2.depth=14")
    steps = steps_of(name, lambda start, width: source.mark(0, start, width))
    if not text.strip():
        return Override(steps, YamlNode(None, source.mark(0, len(name), 1)))
    return Override(steps, parse(" " * (len(name) + 1) + text, COMMAND_LINE, source=source))


def _of_item(key: Any, value: Any, number: int) -> Override:
    """A path and a Python value."""
    if not isinstance(key, str):
        message = f"a path must be text, but got {type(key).__name__}"
        raise fail(SourceText(ARGUMENT, (), number).mark(), "wrong-type", message)
    spot = SourceText(ARGUMENT, (f"{key}=",), number).mark(0, len(key) + 1)
    text = flow(node_of(value, spot).plain())
    source = SourceText(ARGUMENT, (f"{key}={text}",), number)
    if not key.strip():
        raise fail(source.mark(), "wrong-value", "the path is empty")
    steps = steps_of(key, lambda start, width: source.mark(0, start, width))
    return Override(steps, node_of(value, source.mark(0, len(key) + 1, len(text))))
