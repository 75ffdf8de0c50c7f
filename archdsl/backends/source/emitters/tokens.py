"""Moving and choosing tokens in plain PyTorch.

Tokens in windows are [B, windows, places, C]; in groups of 2x2 they are [B, N, C], the four of a group side by side.
"""

from __future__ import annotations

from archdsl.backends.source.text import channels, late, number
from archdsl.backends.source.writer import Emitter, Expression, Writer, start
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ir.order import Groups2x2, Order, Planes, Raster, Windows
from archdsl.ops.tokens import AddPosition, AppendOnes, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken


def _reorder(w: Writer, node: Node, op: Reorder, x: Expression) -> Expression:
    """Any order becomes any other by way of raster order."""
    source = node.inputs[0].type.order
    assert source is not None
    if source == op.to and isinstance(source, Raster):  # another block of this class has the step
        return w.call("to_tokens", x)
    if source == op.to and not isinstance(source, Planes):
        return x
    return _from_raster(w, op.to, x if source == op.to else _to_raster(w, source, x))


def _to_raster(w: Writer, source: Order, x: Expression) -> Expression:
    match source:
        case Planes():
            return w.call("to_tokens", x)
        case Windows():
            return w.call("window_reverse", x, more=_windows(w, source))
        case Groups2x2(outer=outer):
            return w.call("split_2x2", _to_raster(w, outer, _merged(w, x, outer)), more=f", {_size(w, source)}")
    return x


def _from_raster(w: Writer, target: Order, x: Expression) -> Expression:
    match target:
        case Planes():
            return w.call("to_planes", x, more=f", {_size(w, target)}")
        case Windows():
            return w.call("window_partition", x, more=_windows(w, target))
        case Groups2x2(outer=outer):
            merged = _from_raster(w, outer, w.call("merge_2x2", x, more=f", {_size(w, target)}"))
            flat = f"{merged.text}.flatten(1, 2)" if isinstance(outer, Windows) else merged.text
            return Expression(f"{flat}.unflatten(2, (4, -1)).flatten(1, 2)", merged.depth, merged=merged.text)
    return x


def _size(w: Writer, order: Order) -> str:
    return late("size", w.sides((order.height, order.width)))


def _windows(w: Writer, order: Windows) -> str:
    """`, size, window` and, where the network has shifts, `, shift`."""
    shift = f", {late('shift', w.sides(order.shift))}" if w.layouts.shifted else ""
    return f", {_size(w, order)}, {late('window', w.sides(order.window))}{shift}"


def _merged(w: Writer, x: Expression, order: Order | None) -> Expression:
    """Groups of four as one token each, in the groups' own order."""
    four = Expression(f"{x.atom}.unflatten(1, (-1, 4)).flatten(2)", x.depth)
    return Expression(w.unflattened(four, order), x.depth) if isinstance(order, Windows) else four


def _merge_groups(w: Writer, node: Node, op: MergeGroups, x: Expression) -> Expression:
    return _merged(w, x, node.type.order) if x.merged is None else Expression(x.merged, x.depth)


def _slice(w: Writer, node: Node, op: Slice, x: Expression) -> Expression:
    first = late("channels", op.start) if op.start else ""
    last = late("channels", op.stop) if op.stop < node.inputs[0].type.channels else ""
    return Expression(f"{x.atom}[..., {first}:{last}]", x.depth)


def _prepend(w: Writer, node: Node, op: PrependToken, x: Expression) -> Expression:
    token = Expression(w.parameter(node, start(op.init, f"1, 1, {channels(op.dim)}")))
    return w.call("prepend", token, x)


def _append_ones(w: Writer, node: Node, op: AppendOnes, x: Expression) -> Expression:
    return w.call("functional.pad", x, more=f", (0, {op.width}), value=1.0")


def _add_position(w: Writer, node: Node, op: AddPosition, x: Expression) -> Expression:
    shape = f"1, {number('num_tokens', op.num_tokens)}, {channels(op.dim)}"
    hold = w.state if op.fixed else w.parameter
    return Expression(f"{x.text} + {hold(node, start(op.tensors()[''].init, shape))}", x.depth, infix=True)


def _take_token(w: Writer, node: Node, op: TakeToken, x: Expression) -> Expression:
    return Expression(f"{x.atom}[:, {late('position', op.position)}]", x.depth)


def _mean_pool(w: Writer, node: Node, op: MeanPool, x: Expression) -> Expression:
    axes = "(2, 3)" if isinstance(node.inputs[0].type.order, Planes) else "1"
    return Expression(f"{x.atom}.mean({axes})", x.depth)


EMITTERS: dict[type[Op], Emitter] = {
    Reorder: _reorder,
    MergeGroups: _merge_groups,
    Slice: _slice,
    PrependToken: _prepend,
    AppendOnes: _append_ones,
    AddPosition: _add_position,
    TakeToken: _take_token,
    MeanPool: _mean_pool,
}
