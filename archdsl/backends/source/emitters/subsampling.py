"""Subsampled maps and biases by distance in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import late, number
from archdsl.backends.source.writer import Emitter, Expression, Writer, start
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.subsampling import OffsetBias, Subsample


def _subsample(w: Writer, node: Node, op: Subsample, x: Expression) -> Expression:
    order = node.inputs[0].type.order
    assert order is not None
    size = late("size", w.sides((order.height, order.width)))
    return w.call("subsample", x, more=f", {size}, {late('stride', op.stride)}")


def _offset_bias(w: Writer, node: Node, op: OffsetBias) -> Expression:
    size, heads = number("size", w.sides(op.map)), number("heads", op.heads)
    places = f"{size} ** 2" if w.layouts.square else f"{size}[0] * {size}[1]"
    table = w.parameter(node, start(op.tensors()[""].init, f"{heads}, {places}"))
    index = w.buffer("offset_index", f"offset_index({size}, {number('stride', op.stride)})")
    return Expression(f"{table}[:, {index}][None]", 1, name="bias")


EMITTERS: dict[type[Op], Emitter] = {Subsample: _subsample, OffsetBias: _offset_bias}
