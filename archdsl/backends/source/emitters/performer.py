"""Unfolded maps and attention by random features in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import late
from archdsl.backends.source.writer import Emitter, Expression, Writer, start
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.performer import LinearAttention, PositiveFeatures, Unfold


def _unfold(w: Writer, node: Node, op: Unfold, x: Expression) -> Expression:
    order = node.inputs[0].type.order
    assert order is not None
    size = late("size", w.sides((order.height, order.width)))
    sides = ", ".join(late(name, getattr(op, name)) for name in ("kernel", "stride", "padding"))
    return w.call("unfold", x, more=f", {size}, {sides}")


def _features(w: Writer, node: Node, op: PositiveFeatures, x: Expression) -> Expression:
    tensor = op.tensors()[""]
    held = w.state(node, start(tensor.init, ", ".join(map(str, tensor.shape))))
    return w.call("positive_features", x, more=f", {held}, {late('parts', op.parts)}")


def _attention(w: Writer, node: Node, op: LinearAttention, *qkv: Expression) -> Expression:
    return w.call("linear_attention", *qkv, more=f", {late('eps', op.eps)}")


EMITTERS: dict[type[Op], Emitter] = {Unfold: _unfold, PositiveFeatures: _features, LinearAttention: _attention}
