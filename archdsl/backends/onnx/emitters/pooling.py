"""Pooling as MaxPool and AveragePool."""

from __future__ import annotations

from typing import Any

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ops.pooling import Pool2d


def _pool(e: Emission, op: Pool2d, x: Operand) -> Operand:
    shape: dict[str, Any] = {
        "kernel_shape": [op.kernel] * 2,
        "strides": [op.stride] * 2,
        "pads": [op.padding] * 4,
    }
    return e.op("MaxPool" if op.pool == "max" else "AveragePool", x, **shape)


EMITTERS: Emitters = {Pool2d: _pool}
