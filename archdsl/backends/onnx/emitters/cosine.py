"""Heads of length 1 and continuous position biases."""

from __future__ import annotations

import numpy as np

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ops.cosine import MOST_LOG_SCALE, ContinuousPositionBias, HeadNorm


def _head_norm(e: Emission, op: HeadNorm, x: Operand) -> Operand:
    """x / max(|x|, eps), times the scale of each head."""
    rows, channels = e.has_rows(e.node.type), e.node.type.channels
    kept = [0] * (len(e.node.type.shape) - 1 + (0 if rows else e.lead))
    heads = e.op("Reshape", x, e.integers(*kept, op.heads, channels // op.heads, name="heads"))
    length = e.length(heads, -1)
    y = e.op("Div", heads, e.op("Max", length, e.constant(np.array(op.eps, np.float32), "eps")))
    if op.scaled:
        scale = np.exp(np.minimum(e.weight().astype(np.float64), MOST_LOG_SCALE)).reshape(op.heads, 1)
        y = e.op("Mul", y, e.constant(scale.astype(np.float32), "scale"))
    return e.op("Reshape", y, e.integers(*kept, channels, name="channels"))


EMITTERS: Emitters = {HeadNorm: _head_norm, ContinuousPositionBias: Emission.known}
