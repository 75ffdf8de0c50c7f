"""Linear and Conv2d.

Where there was a choice, the form was measured on ONNX Runtime's CPU provider (`benchmarks/onnx_forms.py`, one thread,
median of paired ratios) and this is what won:

- Linear: MatMul and Add on [B, N, C]; a Gemm between two Reshapes takes 1.0 to 1.2 times as long.
"""

from __future__ import annotations

from typing import Any

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ops.linear import Conv2d, Linear


def _linear(e: Emission, op: Linear, x: Operand) -> Operand:
    y = e.op("MatMul", x, e.transposed("weight"))
    return e.op("Add", y, e.parameter("bias")) if op.bias else y


def _conv2d(e: Emission, op: Conv2d, x: Operand) -> Operand:
    tensors = [e.parameter(key) for key in op.tensors()]
    shape: dict[str, Any] = {
        "kernel_shape": [op.kernel] * 2,
        "strides": [op.stride] * 2,
        "pads": [op.padding] * 4,
        "group": op.groups,
        **({"dilations": [op.dilation] * 2} if op.dilation > 1 else {}),
    }
    return e.op("Conv", x, *tensors, **shape)


EMITTERS: Emitters = {
    Linear: _linear,
    Conv2d: _conv2d,
}
