"""Code as text with marks: numbers that may become arguments of a class, and variables that get their names last."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

_NUMBER = re.compile("\ue000(\\w+)\ue001([01])\ue001([^\ue000\ue002]*)\ue002")
_VARIABLE = re.compile("\ue003([^\ue002]*)\ue002")


@dataclass(frozen=True)
class Number:
    """A number in the code of one instance. Instances that differ in their numbers alone share a class.

    kind: what the number is (`channels`, `heads`, `size`, …), and its name if it becomes an argument
    late: whether `forward` reads it, not `__init__`
    """

    kind: str
    value: object
    late: bool = False

    def __str__(self) -> str:
        return f"\ue000{self.kind}\ue001{int(self.late)}\ue001{self.value!r}\ue002"


def number(kind: str, value: object) -> str:
    """The mark of a number that `__init__` reads."""
    return str(Number(kind, value))


def late(kind: str, value: object) -> str:
    """The mark of a number that `forward` reads."""
    return str(Number(kind, value, late=True))


def channels(value: int) -> str:
    """The mark of a width that `__init__` reads."""
    return number("channels", value)


def option(name: str, value: object, default: object) -> str:
    """`, name=value`, or nothing where the value is the default."""
    return "" if value == default else f", {name}={number(name, value)}"


def variable(key: str) -> str:
    """The mark of the local variable that holds the value of the node `key`."""
    return f"\ue003{key}\ue002"


def numbers(code: str) -> list[Number]:
    """The numbers of a code, in reading order."""
    return [Number(m[1], ast.literal_eval(m[3]), m[2] == "1") for m in _NUMBER.finditer(code)]


def pattern(code: str) -> str:
    """The code without its numbers: equal for codes that may share a class."""
    return _NUMBER.sub(lambda m: f"\ue000{m[1]}{m[2]}", code)


def fill(code: str, text_of: Callable[[Number], str] = lambda number: literal(number.value)) -> str:
    """The code with its numbers written."""
    return _NUMBER.sub(lambda m: text_of(Number(m[1], ast.literal_eval(m[3]), m[2] == "1")), code)


def variables(code: str) -> set[str]:
    """The keys of the variables that the code reads."""
    return set(_VARIABLE.findall(code))


def named(code: str, names: dict[str, str]) -> str:
    """The code with its variables named."""
    return _VARIABLE.sub(lambda m: names[m[1]], code)


def literal(value: object) -> str:
    """A number or a tuple of numbers as Python writes it."""
    return repr(value).replace("e-0", "e-") if isinstance(value, float) else repr(value)


def positional(arguments: str) -> str:
    """`dim=dim, heads=heads, window=7` as `dim, heads, window=7`."""
    items = arguments.split(", ")
    bare = [item.partition("=")[0] for item in takewhile(lambda i: len(set(i.split("="))) == 1, items)]
    return ", ".join([*bare, *items[len(bare) :]])
