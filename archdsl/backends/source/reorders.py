"""Changes of the order of tokens, in plain PyTorch."""

from __future__ import annotations

from typing import TypeVar

from archdsl.backends.source.alike import Layout
from archdsl.backends.source.text import Hole, Text, text
from archdsl.backends.source.writer import Expression, Writer, call
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ir.order import Groups2x2, Order, Planes, Raster, Windows
from archdsl.ops import Reorder

SomeOp = TypeVar("SomeOp", bound=Op)
Args = list[Expression]


def of_kind(node: Node, kind: type[SomeOp]) -> SomeOp:
    """The node's op, known to be of `kind`."""
    assert isinstance(node.op, kind)
    return node.op


def reorder(w: Writer, node: Node, args: Args) -> Expression:
    """Any order becomes any other by way of raster order."""
    source, target = node.inputs[0].type.order, of_kind(node, Reorder).to
    assert source is not None
    if source == target:
        return args[0]
    return _from_raster(w, node, target, _to_raster(w, source, args[0]))


def layout(w: Writer, node: Node, args: Args) -> Expression:
    """A change of layout that also takes what is laid out so already."""
    to = of_kind(node, Layout).to
    name = "to_planes" if isinstance(to, Planes) else "to_tokens"
    w.function(f"{name}:either")
    size = text(", ", _size(w, to)) if name == "to_planes" else ()
    return call(f"{name}(", args[0].text, size, ")", of=args)


def _to_raster(w: Writer, source: Order, x: Expression) -> Expression:
    match source:
        case Planes():
            w.function("to_tokens")
            return call("to_tokens(", x.text, ")", of=[x])
        case Windows():
            w.function("window_reverse")
            return call("window_reverse(", x.text, windows_of(w, source, late=True), ")", of=[x])
        case Groups2x2(outer=outer):
            merged = _to_raster(w, outer, Expression(_four_in_one(x), x.depth))
            w.function("split_2x2")
            return call("split_2x2(", merged.text, ", ", _size(w, source), ")", of=[merged])
    return x


def _from_raster(w: Writer, node: Node, target: Order, x: Expression) -> Expression:
    match target:
        case Planes():
            w.function("to_planes")
            return call("to_planes(", x.text, ", ", _size(w, target), ")", of=[x])
        case Windows():
            w.function("window_partition")
            return call("window_partition(", x.text, windows_of(w, target, late=True), ")", of=[x])
        case Groups2x2(outer=outer):
            w.function("merge_2x2")
            merged = call("merge_2x2(", x.text, ", ", _size(w, target), ")", of=[x])
            merged = merged if isinstance(outer, Raster) else _from_raster(w, node, outer, merged)
            split = text(merged.text, ".unflatten(2, (4, -1)).flatten(1, 2)")
            return Expression(split, merged.depth, merged=merged.text)
    return x


def _size(w: Writer, order: Order) -> Text:
    return (Hole("size", "size", w.layouts.side((order.height, order.width)), late=True),)


def windows_of(w: Writer, order: Windows, *, late: bool) -> Text:
    """`, size, window` and, where the network has shifts, `, shift`."""
    size, window, shift = (w.layouts.side(s) for s in ((order.height, order.width), order.window, order.shift))
    found = text(", ", Hole("size", "size", size, late), ", ", Hole("window", "window", window, late))
    return text(found, ", ", Hole("shift", "shift", shift, late)) if w.layouts.shifted else found


def _four_in_one(x: Expression) -> Text:
    return text(x.atom, ".unflatten(1, (-1, 4)).flatten(2)")


def merge_groups(w: Writer, node: Node, args: Args) -> Expression:
    (x,) = args
    return Expression(x.merged or _four_in_one(x), x.depth)
