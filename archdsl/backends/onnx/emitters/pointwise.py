"""Activations, sums and factors."""

from __future__ import annotations

import numpy as np

from archdsl.backends.initial import Array
from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ops.pointwise import Activation, Add, Average, Dropout, DropPath, LayerScale
from archdsl.passes.fold_constants import LIMIT


def _activation(e: Emission, op: Activation, x: Operand) -> Operand:
    match op.name:
        case "gelu" | "gelu_tanh":
            tanh = op.name == "gelu_tanh"
            if e.knows("Gelu"):
                return e.op("Gelu", x, approximate="tanh" if tanh else "none")
            return (_gelu_by_tanh if tanh else _gelu_by_erf)(e, x)
        case "relu":
            return e.op("Relu", x)
        case "sigmoid":
            return e.op("Sigmoid", x)
        case "hardsigmoid":
            return e.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        case "silu":
            return e.op("Mul", x, e.op("Sigmoid", x))
        case "hardswish":
            if e.knows("HardSwish"):
                return e.op("HardSwish", x)
            return e.op("Mul", x, e.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _gelu_by_erf(e: Emission, x: Operand) -> Operand:
    """x * (1 + erf(x / sqrt(2))) / 2, in the order of ops that runtimes make one of again."""
    share = e.op("Add", e.op("Erf", e.op("Div", x, _number(2**0.5))), _number(1))
    return e.op("Mul", e.op("Mul", x, share), _number(0.5))


def _gelu_by_tanh(e: Emission, x: Operand) -> Operand:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))). Where x^3 overflows in fp16, tanh is 1 or -1 anyway."""
    cube = e.op("Mul", e.op("Pow", x, _number(3)), _number(0.044715))
    share = e.op("Tanh", e.op("Mul", e.op("Add", x, cube), _number((2 / np.pi) ** 0.5)))
    return e.op("Mul", e.op("Mul", x, _number(0.5)), e.op("Add", share, _number(1)))


def _number(x: float) -> Array:
    return np.array(x, np.float32)


def _add(e: Emission, op: Add, x: Operand, y: Operand) -> Operand:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and e.node.type.size <= LIMIT:
        folded: Array = x + y
        return folded
    return e.op("Add", x, y)


EMITTERS: Emitters = {
    Activation: _activation,
    Add: _add,
    Average: lambda e, op, x, y: e.op("Mean", x, y),
    LayerScale: lambda e, op, x: e.op("Mul", x, e.parameter()),
    DropPath: lambda e, op, x: x,  # at inference it does nothing
    Dropout: lambda e, op, x: x,  # the same
}
