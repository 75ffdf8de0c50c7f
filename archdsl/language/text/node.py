"""The tree that a YAML text becomes: plain values, each with the place where it was written."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from archdsl.errors import Place, Problem, SpecError
from archdsl.language.text import limits

_SURROGATE = re.compile("[\ud800-\udfff]")

Scalar = str | int | float | bool | None
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text with a name. `first_line` is the number of its first line, where that is not 1."""

    file: str
    lines: tuple[str, ...] = ()
    first_line: int = 1

    def mark(self, line: int = 0, column: int = 0, width: int = 1) -> Mark:
        """A stretch of this text; line and column count from 0."""
        return Mark(self, line, column, width)


class Mark(NamedTuple):
    """A stretch of a source; line and column count from 0, as in YAML events."""

    source: SourceText
    line: int
    column: int
    width: int = 1

    @classmethod
    def at(cls, place: Place) -> Mark:
        """The mark of nodes that are made of what stands at a place."""
        source = SourceText(place.file, () if place.text is None else (place.text,), place.line)
        return source.mark(0, place.column - 1, place.width)

    def place(self) -> Place:
        """The mark as an error shows it, counted from 1."""
        lines = self.source.lines
        text = lines[self.line] if self.line < len(lines) else None
        return Place(self.source.file, self.line + self.source.first_line, self.column + 1, text, max(1, self.width))


class YamlNode:
    """A value with its mark. Children are shared freely and never changed.

    value: a scalar, a list of nodes or a dict of nodes
    keys: for a mapping, the marks of its keys
    size, height: how many nodes it holds and how deep they nest, itself included and aliases expanded
    """

    __slots__ = ("height", "keys", "mark", "size", "value")

    def __init__(self, value: Any, mark: Mark, keys: dict[str, Mark] | None = None, size: int = 1, height: int = 0):
        self.value = value
        self.mark = mark
        self.keys = keys
        self.size = size
        self.height = height

    @classmethod
    def mapping(cls, items: Mapping[str, YamlNode], keys: Mapping[str, Mark], mark: Mark) -> YamlNode:
        """A mapping of nodes; `keys` may hold marks of other keys too."""
        size = 1 + sum(node.size for node in items.values())
        height = 1 + max((node.height for node in items.values()), default=0)
        return cls(dict(items), mark, {key: keys[key] for key in items}, size, height)

    @classmethod
    def sequence(cls, items: list[YamlNode], mark: Mark) -> YamlNode:
        """A list of nodes."""
        height = 1 + max((node.height for node in items), default=0)
        return cls(list(items), mark, None, 1 + sum(node.size for node in items), height)

    @property
    def is_map(self) -> bool:
        """Whether the value is a mapping."""
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return isinstance(self.value, list)

    def plain(self) -> Any:
        """The value without marks: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def get(self, key: str) -> YamlNode | None:
        """The value of a key; None when this is no mapping or has no such key."""
        if not isinstance(self.value, dict):
            return None
        found: YamlNode | None = self.value.get(key)
        return found

    def child(self, part: str | int) -> YamlNode | None:
        """One step down, by key or by index."""
        if self.is_map:
            return self.get(str(part))
        if isinstance(self.value, list) and str(part).isdecimal() and int(part) < len(self.value):
            item: YamlNode = self.value[int(part)]
            return item
        return None

    def key_mark(self, key: str) -> Mark:
        """Where a key is written; the mark of the whole mapping when that is not known."""
        return (self.keys or {}).get(key, self.mark)

    def scalars(self, path: Path = ()) -> Iterator[tuple[Path, YamlNode]]:
        """All scalars below, with their paths."""
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.scalars((*path, key))
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.scalars((*path, index))
        else:
            yield path, self

    def without(self, *names: str) -> YamlNode:
        """This mapping without some of its keys."""
        left_out = set(names)
        kept = {key: node for key, node in self.value.items() if key not in left_out}
        return YamlNode.mapping(kept, self.keys or {}, self.mark)

    def only(self, names: Collection[str]) -> YamlNode:
        """This mapping with no other keys than these."""
        return self.without(*(self.value.keys() - set(names)))

    def moved(self, mark: Mark) -> YamlNode:
        """The same value, said to stand elsewhere (an alias)."""
        return YamlNode(self.value, mark, self.keys, self.size, self.height)


class NameOfFile(YamlNode):
    """A name that nobody wrote: it is the name of the file."""

    __slots__ = ()


def dotted(path: Path) -> str:
    """`('stages', 2, 'dim')` -> `stages.2.dim`."""
    return ".".join(str(part) for part in path)


def fail(mark: Mark, rule: str, message: str, hint: str | None = None, path: str | None = None) -> SpecError:
    """A SpecError about one thing."""
    return SpecError(Problem(mark.place(), rule, message, hint, path))


def node_of(value: Any, mark: Mark, depth: int = 0) -> YamlNode:
    """Plain Python data as a node; every part of it stands at `mark`."""
    if depth > limits.MAX_NESTING:
        raise fail(mark, "limit", f"nested deeper than {limits.MAX_NESTING} levels")
    if isinstance(value, Mapping):
        items = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise fail(mark, "wrong-type", f"a key must be text, but got {type(key).__name__}")
            check_text(key, mark)
            items[key] = node_of(item, mark, depth + 1)
        return check_size(YamlNode.mapping(items, dict.fromkeys(items, mark), mark))
    if isinstance(value, list | tuple):
        return check_size(YamlNode.sequence([node_of(item, mark, depth + 1) for item in value], mark))
    if isinstance(value, str):
        return YamlNode(check_text(str(value), mark), mark)
    if value is None or isinstance(value, bool):
        return YamlNode(value, mark)
    if isinstance(value, int):
        return YamlNode(check_int(int(value), mark), mark)
    if isinstance(value, float):
        return YamlNode(float(value), mark)
    kinds = "a number, text, true, false, null, a list or a mapping"
    raise fail(mark, "wrong-type", f"a value must be {kinds}, but got {type(value).__name__}")


def check_text(text: str, mark: Mark) -> str:
    """The text; SpecError when it is too long, or UTF-8 cannot hold it."""
    if len(text) > limits.MAX_SCALAR_CHARS:
        message = f"a value may have at most {limits.MAX_SCALAR_CHARS:_} characters, this has {len(text):_}"
        raise fail(mark, "limit", message)
    if not text.isascii() and _SURROGATE.search(text):
        raise fail(mark, "syntax", "the text holds half a character (a lone surrogate)")
    return text


def check_int(value: int, mark: Mark) -> int:
    """The number; SpecError beyond 64 bits."""
    if abs(value) > limits.MAX_INT:
        raise fail(mark, "limit", "a whole number must fit in 64 bits")
    return value


def check_size(node: YamlNode) -> YamlNode:
    """The node; SpecError when it holds more nodes, or nests deeper, than the limits allow."""
    if node.size > limits.MAX_NODES:
        raise fail(node.mark, "limit", f"more than {limits.MAX_NODES:_} values once aliases are expanded")
    if node.height > limits.MAX_NESTING:
        raise fail(node.mark, "limit", f"nested deeper than {limits.MAX_NESTING} levels once aliases are expanded")
    return node


def is_finite(value: Scalar) -> bool:
    """Whether a scalar is anything but an infinite or undefined number."""
    return not isinstance(value, float) or math.isfinite(value)
