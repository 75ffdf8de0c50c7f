"""Norms, and what deploying leaves of them.

Where there was a choice, the form was measured on ONNX Runtime's CPU provider (`benchmarks/onnx_forms.py`, one thread,
median of paired ratios) and this is what won:

- BatchNorm: y = x * scale + shift with both made from the running statistics while emitting (exact algebra; rounding
  differs by about 1e-7 of the values). `BatchNormalization` on [B * N, C] takes 0.7 to 0.9 of that (0.02 ms of 0.06),
  but hides the batch axis from shape inference; on [B, C, N] it takes 1.2 to 2.6 times as long.
"""

from __future__ import annotations

import numpy as np

from archdsl.backends.initial import Array
from archdsl.backends.onnx.emitters.tokens import put_behind
from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.order import Planes
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, LayerNormWithOnes, Shift, TokenAffine, TokenBatchNorm


def _layer_norm(e: Emission, op: LayerNorm, x: Operand) -> Operand:
    """A plain layer norm has no bias; its scale is one vector of ones for all norms of that width."""
    if not e.knows("LayerNormalization"):
        return _layer_norm_in_primitives(e, op, x)
    affine = [e.parameter(key) for key in op.tensors()] or [np.ones(op.dim, np.float32)]
    return e.op("LayerNormalization", x, *affine, axis=-1, epsilon=op.eps)


def _layer_norm_in_primitives(e: Emission, op: LayerNorm, x: Operand) -> Operand:
    """(x - mean) / sqrt(variance + eps) * weight + bias, in the ops from which runtimes make one again.

    As in LayerNormalization, the statistics are fp32 whatever the network is: squares overflow in fp16.
    """
    dtype = e.node.type.dtype
    wide = e.value(x) if dtype == "f32" else e.cast(e.value(x), "f32")
    eps, two = (e.constant(np.array(number, np.float32), name, "f32") for number, name in ((op.eps, "eps"), (2, "two")))
    centred = e.op("Sub", wide, e.mean(wide, -1, keepdims=True))
    variance = e.mean(e.op("Pow", centred, two), -1, keepdims=True)
    y = e.op("Div", centred, e.op("Sqrt", e.op("Add", variance, eps)))
    if dtype != "f32":
        y = e.cast(y, dtype)
    for op_type, key in zip(("Mul", "Add"), op.tensors(), strict=False):
        y = e.op(op_type, y, e.parameter(key))
    return y


def _layer_norm_with_ones(e: Emission, op: LayerNormWithOnes, x: Operand) -> Operand:
    """Over C + width channels from the start, with sums in which the further ones are 0.

    TensorRT makes one kernel of this, but two of a norm and what is put behind its result.
    """
    inside = np.concatenate([np.ones(op.dim, np.float32), np.zeros(op.width, np.float32)])
    by_count, eps = (e.constant(np.array(x, np.float32), name) for x, name in ((1 / op.dim, "share"), (op.eps, "eps")))
    wide = put_behind(e, x, op.width, 0.0)
    centred = e.op("Sub", wide, e.op("Mul", e.sum(wide, -1), by_count))
    centred = e.op("Mul", centred, e.constant(inside, "inside"))
    variance = e.op("Mul", e.sum(e.op("Mul", centred, centred), -1), by_count)
    y = e.op("Div", centred, e.op("Sqrt", e.op("Add", variance, eps)))
    return e.op("Add", y, e.constant(1 - inside, "ones"))


def _batch_norm(e: Emission, op: BatchNorm, x: Operand) -> Operand:
    scale, shift = (_by_channel(e, each) for each in _scale_and_shift(e, op.eps))
    return e.op("Add", e.op("Mul", x, e.constant(scale, "scale")), e.constant(shift, "shift"))


def _affine(e: Emission, op: Affine, x: Operand) -> Operand:
    if not isinstance(e.node.type.order, Planes):
        return e.op("Add", e.op("Mul", x, e.parameter("weight")), e.parameter("bias"))
    scale, shift = (e.constant(_by_channel(e, e.weight(key)), key) for key in ("weight", "bias"))
    return e.op("Add", e.op("Mul", x, scale), shift)


def _by_channel(e: Emission, numbers: Array) -> Array:
    """One number a channel, so that it meets the axis of the channels."""
    return numbers[:, None, None] if isinstance(e.node.type.order, Planes) else numbers


def _token_batch_norm(e: Emission, op: TokenBatchNorm, x: Operand) -> Operand:
    scale, shift = _scale_and_shift(e, op.eps)
    return e.op("Add", e.op("Mul", x, e.constant(scale[:, None], "scale")), e.constant(shift[:, None], "shift"))


def _token_affine(e: Emission, op: TokenAffine, x: Operand) -> Operand:
    scale, shift = (e.constant(e.weight(key)[:, None], key) for key in ("weight", "bias"))
    return e.op("Add", e.op("Mul", x, scale), shift)


def _scale_and_shift(e: Emission, eps: float) -> tuple[Array, Array]:
    """(x - mean) / sqrt(var + eps) * weight + bias as x * scale + shift."""
    weight, bias, mean, var = (
        e.weight(key).astype(np.float64) for key in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(var + eps)
    return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


EMITTERS: Emitters = {
    LayerNorm: _layer_norm,
    LayerNormWithOnes: _layer_norm_with_ones,
    BatchNorm: _batch_norm,
    TokenBatchNorm: _token_batch_norm,
    Affine: _affine,
    TokenAffine: _token_affine,
    Shift: lambda e, op, x: e.op("Add", x, e.parameter()),
}
