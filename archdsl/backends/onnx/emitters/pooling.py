"""Pooling as MaxPool and AveragePool, or where neighbourhoods differ in size as products with rows of shares; Resize.

Where neighbourhoods reach out of the map below or to the right, it is padded there: what is padded does not count, and
runtimes differ in what they make of `ceil_mode`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from archdsl.backends.initial import Array
from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.graph import Node
from archdsl.ops.pooling import AdaptivePool, Pool2d, Resize


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


def _adaptive_pool(e: Emission, op: AdaptivePool, x: Operand) -> Operand:
    (type,) = (each.type for each in e.node.inputs)
    (height, width), size = type.shape[1:], (op.height, op.width)
    if size == (1, 1):
        return e.mean(x, e.lead + 1, e.lead + 2, keepdims=True)
    if height % op.height == 0 and width % op.width == 0:
        sides = [height // op.height, width // op.width]
        return e.op("AveragePool", x, kernel_shape=sides, strides=sides)
    down, across = (
        _shares(bounds, side) for bounds, side in zip(op.bounds(type), (height, width), strict=True)
    )  # [height, H], [width, W]
    return e.op("MatMul", e.constant(down, "down"), e.op("MatMul", x, e.constant(across.T, "across")))


def _shares(bounds: list[tuple[int, int]], side: int) -> Array:
    """A row for each neighbourhood: 1 / its size at its places, else 0."""
    rows = np.zeros((len(bounds), side), np.float32)
    for row, (start, stop) in zip(rows, bounds, strict=True):
        row[start:stop] = 1 / (stop - start)
    return rows


def _resize(e: Emission, op: Resize, x: Operand) -> Operand:
    """To a size of four numbers, the first two of which are those of the input where the batch is dynamic."""
    if e.batch is None and e.lead:
        sides = e.integers(op.height, op.width, name="size")
        outer = e.op("Slice", e.op("Shape", x), e.integers(0), e.integers(2), e.integers(0))
        sizes = e.op("Concat", outer, sides, axis=0)
    else:
        sizes = e.integers(*([e.batch or 1] if e.lead else []), *e.node.type.shape, name="size")
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if op.mode == "bilinear":
        corners = "align_corners" if op.align_corners else "half_pixel"
        how = {"mode": "linear", "coordinate_transformation_mode": corners}
    return e.op("Resize", x, None, None, sizes, **how)


EMITTERS: Emitters = {Pool2d: _pool, AdaptivePool: _adaptive_pool, Resize: _resize}
