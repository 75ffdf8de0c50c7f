"""Moving and choosing tokens.

Where there was a choice, the form was measured on ONNX Runtime's CPU provider (`benchmarks/onnx_forms.py`, one thread,
median of paired ratios) and this is what won:

- Reorder: one Gather over the token axis (plus one 2-D transpose where planes are involved), for every pair of orders.
  Reshape - Transpose - Reshape takes 1.3 to 1.7 times as long for window partition, window merge and 2x2 groups, 2 to
  4 times for anything shifted (with Slice and Concat for the roll), 3 to 10 times between planes and windows.
- Padding: one zero token put behind the others, which the Gather then reads. Padding the map takes 1.4 to 1.6 times as
  long. Dropping the padding is part of the Gather; Transpose and Slice take 2.2 times as long.
- q, k and v, attention, tokens as matrices: measured on whole networks, by runtime (`backends.onnx.dialects`).
- The class token's batch: a slice of x times zero, plus the token. Shape and Expand take 0.9 of its 0.012 ms, but leave
  a Shape in the graph; Pad and Add take 1.3 to 1.8 times as long.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx_ir as ir

from archdsl.backends.initial import Array
from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.order import Order, Planes, Raster
from archdsl.ops.tokens import AddPosition, AppendOnes, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken

# B = batch, N = tokens, C = channels


def _reorder(e: Emission, op: Reorder, x: Operand) -> Operand:
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


def _slice(e: Emission, op: Slice, x: Operand) -> Operand:
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


def _prepend_token(e: Emission, op: PrependToken, x: Operand) -> Operand:
    """[B, N, C] -> [B, N + 1, C]. 0 * x[:, :1] + token is the token once for each image, whatever the batch."""
    if not e.lead:
        return e.op("Concat", e.weight().reshape(1, op.dim), x, axis=0)
    first = e.op("Slice", x, e.integers(0), e.integers(1), e.integers(1))
    nothing = e.op("Mul", first, np.zeros((), np.float32))
    return e.op("Concat", e.op("Add", nothing, e.parameter()), x, axis=1)


def put_behind(e: Emission, x: Operand, width: int, number: float) -> ir.Value:
    """`x`, the node's only input, with further channels that all hold `number`."""
    axes = 2 if e.has_rows(e.node.type) else e.lead + len(e.node.type.shape)
    pads = e.integers(*[0] * axes, *[0] * (axes - 1), width, name="pads")
    return e.op("Pad", x, pads, e.constant(np.array(number), "number"))


def _take_token(e: Emission, op: TakeToken, x: Operand) -> Operand:
    return e.op("Gather", x, e.constant(np.array(op.position, np.int64), "position"), axis=e.lead)


def _mean_pool(e: Emission, op: MeanPool, x: Operand) -> Operand:
    axes = (1, 2) if isinstance(e.node.inputs[0].type.order, Planes) else (0,)
    return e.mean(x, *(axis + e.lead for axis in axes))


EMITTERS: Emitters = {
    Reorder: _reorder,
    MergeGroups: lambda e, op, x: e.reshape(x, *e.node.type.shape),
    Slice: _slice,
    PrependToken: _prepend_token,
    AppendOnes: lambda e, op, x: put_behind(e, x, op.width, 1.0),
    AddPosition: lambda e, op, x: e.op("Add", x, e.parameter()),
    TakeToken: _take_token,
    MeanPool: _mean_pool,
}
