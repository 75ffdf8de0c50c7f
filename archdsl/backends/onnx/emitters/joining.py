"""Products, differences and channels side by side."""

from __future__ import annotations

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.order import Planes
from archdsl.ops.joining import AddVector, Concat, Mul, MulVector, Sub


def _everywhere(e: Emission, v: Operand) -> Operand:
    """[B, C] -> [B, C, 1, 1]"""
    return e.reshape(v, e.node.type.channels, 1, 1)


def _concat(e: Emission, op: Concat, *xs: Operand) -> Operand:
    return e.op("Concat", *xs, axis=e.lead if isinstance(e.node.type.order, Planes) else -1)


EMITTERS: Emitters = {
    Mul: lambda e, op, x, y: e.op("Mul", x, y),
    Sub: lambda e, op, x, y: e.op("Sub", x, y),
    MulVector: lambda e, op, x, v: e.op("Mul", x, _everywhere(e, v)),
    AddVector: lambda e, op, x, v: e.op("Add", x, _everywhere(e, v)),
    Concat: _concat,
}
