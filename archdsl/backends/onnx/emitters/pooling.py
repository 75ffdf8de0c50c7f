"""Pooling as MaxPool and AveragePool.

Where neighbourhoods reach out of the map below or to the right, it is padded there: what is padded does not count, and
runtimes differ in what they make of `ceil_mode`.
"""

from __future__ import annotations

from typing import Any

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.graph import Node
from archdsl.ops.pooling import Pool2d


def _pool(e: Emission, op: Pool2d, x: Operand) -> Operand:
    shape: dict[str, Any] = {
        "kernel_shape": [op.kernel] * 2,
        "strides": [op.stride] * 2,
        "pads": [op.padding] * 2 + [max(op.padding, end) for end in _ends(op, e.node)],
    }
    return e.op("MaxPool" if op.pool == "max" else "AveragePool", x, **shape)


def _ends(op: Pool2d, node: Node) -> tuple[int, int]:
    """How far the last neighbourhoods reach beyond the map."""
    (x,), (_, height, width) = node.inputs, node.type.shape
    sides = zip((height, width), x.type.shape[1:], strict=True)
    down, across = ((places - 1) * op.stride + op.kernel - op.padding - side for places, side in sides)
    return down, across


EMITTERS: Emitters = {Pool2d: _pool}
