"""The functions and classes of `snippets.py.txt` that a file needs, in the form that its network allows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archdsl.ir.graph import Graph
from archdsl.ir.order import Groups2x2, Order, Windows
from archdsl.ops.attention import ShiftMask


@dataclass(frozen=True)
class Layouts:
    """The layouts of tokens in a network.

    square: whether all maps, windows and shifts are square
    shifted: whether some windows are shifted
    padded: whether some maps are padded, to whole windows or to an even size
    """

    square: bool
    shifted: bool
    padded: bool

    @classmethod
    def of(cls, graph: Graph) -> Layouts:
        """The layouts of a graph."""
        orders = list(_orders(graph))
        windows = [order for order in orders if isinstance(order, Windows)]
        sides = [(order.height, order.width) for order in orders]
        sides += [pair for order in windows for pair in (order.window, order.shift)]
        padded = any(order.padded for order in orders)
        return cls(all(a == b for a, b in sides), any(order.shifted for order in windows), padded)


def _orders(graph: Graph) -> Iterator[Order]:
    for node in graph.live():
        order = node.op.order if isinstance(node.op, ShiftMask) else node.type.order
        yield from (order,) if order is not None else ()
        yield from (order.outer,) if isinstance(order, Groups2x2) else ()


def _snippets() -> dict[str, str]:
    text = Path(__file__).with_name("snippets.py.txt").read_text(encoding="utf-8")
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {node.name: ast.get_source_segment(text, node) or "" for node in nodes if node.name != "pair"}


SNIPPETS = _snippets()
"""The code of each function and class that a file may hold, by name."""


def copies(classes: Iterable[str], layouts: Layouts) -> dict[str, str]:
    """The snippets that the classes read, and those that these read, by name, in a fixed order."""
    reads = {name: _names(code) for name, code in SNIPPETS.items()}
    waiting, needed = _names("\n".join(classes)), set[str]()
    while waiting:
        needed |= waiting
        waiting = set[str]().union(*(reads[name] for name in waiting)) - needed
    return {name: specialized(code, layouts) for name, code in SNIPPETS.items() if name in needed}


def _names(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)} & SNIPPETS.keys()


def specialized(code: str, layouts: Layouts) -> str:
    """A snippet without lines that do nothing in this network, and with one number for both sides of what is square."""
    idle = [word for word, needed in ((".roll(", layouts.shifted), ("F.pad(", layouts.padded)) if not needed]
    code = "\n".join(line for line in code.splitlines() if not any(word in line for word in idle))
    if not layouts.shifted:
        code = code.replace(", shift: Sides", "").replace(", (dy, dx)", "").replace(", pair(shift)", "")
    if not layouts.square:
        return re.sub(r"pair\((\w+)\)", r"\1", code).replace("Sides", "tuple[int, int]")
    if unpacked := re.search(r" +([^\n=]*) = (pair\(.*\))\n", code):
        code = code.replace(unpacked[0], "")
        pairs = re.findall(r"(\w+), (\w+)", unpacked[1])
        for names, side in zip(pairs, re.findall(r"pair\((\w+)\)", unpacked[2]), strict=True):
            code = re.sub(rf"\b({'|'.join(names)})\b", side, code)
    code = code.replace("pair(shift) == (0, 0)", "shift == 0").replace("Sides", "int")
    return re.sub(r"pair\((\w+)\)", r"(\1, \1)", code)
