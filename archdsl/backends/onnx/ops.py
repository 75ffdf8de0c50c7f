"""One ONNX emitter an op.

Where there was a choice, the form was measured on ONNX Runtime's CPU provider (`benchmarks/onnx_forms.py`, one thread,
median of paired ratios) and this is what won:

- Reorder: one Gather over the token axis (plus one 2-D transpose where planes are involved), for every pair of orders.
  Reshape - Transpose - Reshape takes 1.3 to 1.7 times as long for window partition, window merge and 2x2 groups, 2 to
  4 times for anything shifted (with Slice and Concat for the roll), 3 to 10 times between planes and windows.
- Padding: one zero token put behind the others, which the Gather then reads. Padding the map takes 1.4 to 1.6 times as
  long. Dropping the padding is part of the Gather; Transpose and Slice take 2.2 times as long.
- q, k and v, attention, tokens as matrices: measured on whole networks, by runtime (`backends.onnx.dialects`).
- Linear: MatMul and Add on [B, N, C]; a Gemm between two Reshapes takes 1.0 to 1.2 times as long.
- The class token's batch: a slice of x times zero, plus the token. Shape and Expand take 0.9 of its 0.012 ms, but leave
  a Shape in the graph; Pad and Add take 1.3 to 1.8 times as long.
- BatchNorm: y = x * scale + shift with both made from the running statistics while emitting (exact algebra; rounding
  differs by about 1e-7 of the values). `BatchNormalization` on [B * N, C] takes 0.7 to 0.9 of that (0.02 ms of 0.06),
  but hides the batch axis from shape inference; on [B, C, N] it takes 1.2 to 2.6 times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import onnx_ir as ir

from archdsl.backends.initial import Array
from archdsl.backends.onnx.attention import emit_attention
from archdsl.backends.onnx.graph import DTYPES, Emission, Operand
from archdsl.ir.graph import Input
from archdsl.ir.op import Op
from archdsl.ir.order import Order, Planes, Raster
from archdsl.ops import (
    Activation,
    Add,
    AddPosition,
    Affine,
    Attention,
    BatchNorm,
    Cast,
    Constant,
    Conv2d,
    Dropout,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    MeanPool,
    MergeGroups,
    PrependToken,
    RelativePositionBias,
    Reorder,
    ShiftMask,
    Slice,
    TakeToken,
    TokenAffine,
    TokenBatchNorm,
)
from archdsl.passes.fold_constants import LIMIT

# Shapes and axes in the comments: B = batch, N = tokens, C = channels, W = windows, h = heads, n = tokens of a window


def emit_input(e: Emission, op: Input) -> Operand:
    return ir.Value(name=e.node.path)


def emit_linear(e: Emission, op: Linear, x: Operand) -> Operand:
    y = e.op("MatMul", x, e.transposed("weight"))
    return e.op("Add", y, e.parameter("bias")) if op.bias else y


def emit_conv2d(e: Emission, op: Conv2d, x: Operand) -> Operand:
    tensors = [e.parameter(key) for key in op.tensors()]
    shape: dict[str, Any] = {
        "kernel_shape": [op.kernel] * 2,
        "strides": [op.stride] * 2,
        "pads": [op.padding] * 4,
        "group": op.groups,
    }
    return e.op("Conv", x, *tensors, **shape)


def emit_layer_norm(e: Emission, op: LayerNorm, x: Operand) -> Operand:
    """A plain layer norm has no bias; its scale is one vector of ones for all norms of that width."""
    affine = [e.parameter(key) for key in op.tensors()] or [np.ones(op.dim, np.float32)]
    return e.op("LayerNormalization", x, *affine, axis=-1, epsilon=op.eps)


def emit_batch_norm(e: Emission, op: BatchNorm, x: Operand) -> Operand:
    scale, shift = _scale_and_shift(e, op.eps)
    return e.op("Add", e.op("Mul", x, e.constant(scale, "scale")), e.constant(shift, "shift"))


def emit_token_batch_norm(e: Emission, op: TokenBatchNorm, x: Operand) -> Operand:
    scale, shift = _scale_and_shift(e, op.eps)
    return e.op("Add", e.op("Mul", x, e.constant(scale[:, None], "scale")), e.constant(shift[:, None], "shift"))


def emit_affine(e: Emission, op: Affine, x: Operand) -> Operand:
    return e.op("Add", e.op("Mul", x, e.parameter("weight")), e.parameter("bias"))


def emit_token_affine(e: Emission, op: TokenAffine, x: Operand) -> Operand:
    scale, shift = (e.constant(e.weight(key)[:, None], key) for key in ("weight", "bias"))
    return e.op("Add", e.op("Mul", x, scale), shift)


def _scale_and_shift(e: Emission, eps: float) -> tuple[Array, Array]:
    """(x - mean) / sqrt(var + eps) * weight + bias as x * scale + shift."""
    weight, bias, mean, var = (
        e.weight(key).astype(np.float64) for key in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(var + eps)
    return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


def emit_activation(e: Emission, op: Activation, x: Operand) -> Operand:
    match op.name:
        case "gelu":
            return e.op("Gelu", x, approximate="none")
        case "gelu_tanh":
            return e.op("Gelu", x, approximate="tanh")
        case "relu":
            return e.op("Relu", x)
        case "silu":
            return e.op("Mul", x, e.op("Sigmoid", x))
        case "hardswish":
            return e.op("HardSwish", x)


def emit_add(e: Emission, op: Add, x: Operand, y: Operand) -> Operand:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and e.node.type.size <= LIMIT:
        folded: Array = x + y
        return folded
    return e.op("Add", x, y)


def emit_layer_scale(e: Emission, op: LayerScale, x: Operand) -> Operand:
    return e.op("Mul", x, e.parameter())


def emit_nothing(e: Emission, op: DropPath | Dropout, x: Operand) -> Operand:
    """At inference these do nothing."""
    return x


def emit_reorder(e: Emission, op: Reorder, x: Operand) -> Operand:
    source, target = e.node.inputs[0].type, e.node.type
    assert source.order is not None
    if source.order == op.to:
        return x
    if isinstance(source.order, Planes):
        x = e.transpose(e.reshape(x, source.channels, source.order.num_slots), 1, 0)
    index = token_index(_as_tokens(source.order), _as_tokens(op.to))
    if index is not None:
        if index.max() == source.order.num_slots:
            x = e.op("Pad", x, e.integers(*[0] * e.lead, 0, 0, *[0] * e.lead, 1, 0, name="pads"))
        x = e.op("Gather", x, e.constant(index, "index"), axis=e.lead)
    if isinstance(op.to, Planes):
        x = e.reshape(e.transpose(x, 1, 0), *target.shape)
    return x


def _as_tokens(order: Order) -> Order:
    return Raster(order.height, order.width) if isinstance(order, Planes) else order


@lru_cache(maxsize=256)
def token_index(source: Order, target: Order) -> Array | None:
    """For each slot of `target`, the slot of `source` that holds its token; `source.num_slots` where it is padding.

    None when nothing moves.
    """
    held, wanted = np.array(source.slots()), np.array(target.slots())
    slot_of = np.empty(source.height * source.width, np.int64)
    real = held >= 0
    slot_of[held[real]] = np.flatnonzero(real)
    index = np.where(wanted >= 0, slot_of[wanted], source.num_slots)
    return None if np.array_equal(index, np.arange(source.num_slots)) else index


def emit_merge_groups(e: Emission, op: MergeGroups, x: Operand) -> Operand:
    return e.reshape(x, *e.node.type.shape)


def emit_slice(e: Emission, op: Slice, x: Operand) -> Operand:
    """One Split makes all slices of a value when they cut it without gaps or overlaps."""
    source = e.node.inputs[0]
    slices = e.splits.get(source)
    if slices is None:
        start, stop, axis = (
            e.integers(i, name=name) for i, name in ((op.start, "start"), (op.stop, "stop"), (-1, "axis"))
        )
        return e.op("Slice", x, start, stop, axis)
    if (source, op) not in e.split:
        sizes = e.integers(*(part.stop - part.start for part in slices), name="sizes")
        parts = e.multi("Split", x, sizes, num_outputs=len(slices), axis=-1)
        e.split.update({(source, part): value for part, value in zip(slices, parts, strict=True)})
    return e.split[source, op]


def emit_prepend_token(e: Emission, op: PrependToken, x: Operand) -> Operand:
    """[B, N, C] -> [B, N + 1, C]. 0 * x[:, :1] + token is the token once for each image, whatever the batch."""
    if not e.lead:
        return e.op("Concat", e.weight().reshape(1, op.dim), x, axis=0)
    first = e.op("Slice", x, e.integers(0), e.integers(1), e.integers(1))
    nothing = e.op("Mul", first, np.zeros((), np.float32))
    return e.op("Concat", e.op("Add", nothing, e.parameter()), x, axis=1)


def emit_add_position(e: Emission, op: AddPosition, x: Operand) -> Operand:
    return e.op("Add", x, e.parameter())


def emit_take_token(e: Emission, op: TakeToken, x: Operand) -> Operand:
    return e.op("Gather", x, e.constant(np.array(op.position, np.int64), "position"), axis=e.lead)


def emit_mean_pool(e: Emission, op: MeanPool, x: Operand) -> Operand:
    axes = (1, 2) if isinstance(e.node.inputs[0].type.order, Planes) else (0,)
    return e.op("ReduceMean", x, e.integers(*(axis + e.lead for axis in axes)), keepdims=0)


def emit_value(e: Emission, op: RelativePositionBias | ShiftMask | Constant) -> Operand:
    """Numbers that are known while emitting."""
    return op.value([], {key: e.weight(key) for key in op.tensors()})


def emit_cast(e: Emission, op: Cast, x: Operand) -> Operand:
    return e.op("Cast", x, to=DTYPES[op.to])


EMITTERS: dict[type[Op], Callable[..., Any]] = {
    Input: emit_input,
    Linear: emit_linear,
    Conv2d: emit_conv2d,
    LayerNorm: emit_layer_norm,
    BatchNorm: emit_batch_norm,
    TokenBatchNorm: emit_token_batch_norm,
    Affine: emit_affine,
    TokenAffine: emit_token_affine,
    Activation: emit_activation,
    Add: emit_add,
    LayerScale: emit_layer_scale,
    DropPath: emit_nothing,
    Dropout: emit_nothing,
    Reorder: emit_reorder,
    MergeGroups: emit_merge_groups,
    Slice: emit_slice,
    PrependToken: emit_prepend_token,
    AddPosition: emit_add_position,
    TakeToken: emit_take_token,
    MeanPool: emit_mean_pool,
    Attention: emit_attention,
    RelativePositionBias: emit_value,
    ShiftMask: emit_value,
    Constant: emit_value,
    Cast: emit_cast,
}


def works_on_rows(op: Op) -> bool:
    """Whether the op's emitter takes tokens as [B * N, C] too: it treats each token alike, or it is attention."""
    return isinstance(op, Attention) or (
        op.order_rule in ("tokenwise", "elementwise") and not isinstance(op, MergeGroups)
    )
