"""Activations, sums, layer scale and dropping in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import channels, number
from archdsl.backends.source.writer import Emitter, Expression, Writer, start
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.pointwise import Activation, Add, Average, Dropout, DropPath, LayerScale


def _activation(w: Writer, node: Node, op: Activation, x: Expression) -> Expression:
    name, more = ("gelu", ', approximate="tanh"') if op.name == "gelu_tanh" else (op.name, "")
    return w.call(f"{'torch' if name == 'sigmoid' else 'F'}.{name}", x, more=more)


def _add(w: Writer, node: Node, op: Add, x: Expression, y: Expression) -> Expression:
    name = None if node.type.batched else "bias"
    return Expression(f"{x.text} + {y.atom}", max(x.depth, y.depth), infix=True, name=name)


def _average(w: Writer, node: Node, op: Average, x: Expression, y: Expression) -> Expression:
    return Expression(f"({x.text} + {y.atom}) / 2", max(x.depth, y.depth), infix=True)


def _layer_scale(w: Writer, node: Node, op: LayerScale, x: Expression) -> Expression:
    held = w.parameter(node, start(op.tensors()[""].init, channels(op.dim)))
    return Expression(f"{x.atom} * {held}", x.depth, infix=True)


def _drop_path(w: Writer, node: Node, op: DropPath, x: Expression) -> Expression:
    return w.call(w.helper("drop_path", f"DropPath({number('drop_path', op.rate)})"), x)


def _dropout(w: Writer, node: Node, op: Dropout, x: Expression) -> Expression:
    return w.call(w.helper("dropout", f"nn.Dropout({number('dropout', op.rate)})"), x)


EMITTERS: dict[type[Op], Emitter] = {
    Activation: _activation,
    Add: _add,
    Average: _average,
    LayerScale: _layer_scale,
    DropPath: _drop_path,
    Dropout: _dropout,
}
