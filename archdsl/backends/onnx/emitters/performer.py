"""Unfolded maps and attention by random features.

A map is unfolded as it is reordered: one zero token behind the others, then one Gather of tokens.
"""

from __future__ import annotations

from math import log

import numpy as np

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.order import Raster
from archdsl.ops.performer import LinearAttention, PositiveFeatures, Unfold


def _unfold(e: Emission, op: Unfold, x: Operand) -> Operand:
    source, (tokens, channels) = e.node.inputs[0].type, e.node.type.shape
    assert isinstance(source.order, Raster)
    index = np.array(op.places(source.order), np.int64)
    if index.max() == source.order.num_slots:
        x = e.op("Pad", x, e.integers(*[0] * e.lead, 0, 0, *[0] * e.lead, 1, 0, name="pads"))
    x = e.op("Gather", x, e.constant(index, "index"), axis=e.lead)
    x = e.reshape(x, tokens, op.kernel**2, source.channels)
    return e.reshape(e.transpose(x, 0, 2, 1), tokens, channels)


def _features(e: Emission, op: PositiveFeatures, x: Operand) -> Operand:
    """exp(W x - (|x|^2 + log m) / 2)"""
    rows = e.has_rows(e.node.type)
    kept = [0] * (len(e.node.type.shape) - 1 + (0 if rows else e.lead))
    parts = e.op("Reshape", x, e.integers(*kept, op.parts, op.dim, name="parts"))
    near = e.op("MatMul", parts, e.transposed(""))
    length = e.op("Add", e.sum(e.op("Mul", parts, parts), -1), e.constant(np.array(log(op.features), np.float32)))
    y = e.op("Exp", e.op("Sub", near, e.op("Mul", length, e.constant(np.array(0.5, np.float32), "half"))))
    return e.op("Reshape", y, e.integers(*kept, op.parts * op.features, name="channels"))


def _attention(e: Emission, op: LinearAttention, q: Operand, k: Operand, v: Operand) -> Operand:
    keys = e.transpose(k, 1, 0)
    mixed = e.op("MatMul", q, e.op("MatMul", keys, v))
    sums = e.op("MatMul", q, e.sum(keys, -1))
    return e.op("Div", mixed, e.op("Add", sums, e.constant(np.array(op.eps, np.float32), "eps")))


EMITTERS: Emitters = {Unfold: _unfold, PositiveFeatures: _features, LinearAttention: _attention}
