"""Moving and choosing tokens."""

from __future__ import annotations

import operator

import torch
from torch import fx
from torch.nn import functional

from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ir.order import Order, Planes
from archdsl.ops.tokens import AddPosition, AppendOnes, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken


def _reorder(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    """Planes and tokens are two views of one memory (channels last); any other change is one gather."""
    (x,), source, target = args, node.inputs[0].type.order, op_of(node, Reorder).to
    assert source is not None
    if isinstance(source, Planes):
        x = b.call(node, torch.flatten, x, 2)
        x = b.call(node, torch.transpose, x, 1, 2)
    slots = target.slots()
    if slots != source.slots() or target.padded:
        x = _take(b, node, x, source, target)
    if isinstance(target, Planes):
        x = b.call(node, torch.transpose, x, 1, 2)
        x = b.call(node, torch.unflatten, x, 2, (target.height, target.width))
    return x


def _take(b: ModuleBuilder, node: Node, x: fx.Node, source: Order, target: Order) -> fx.Node:
    where = {raster: slot for slot, raster in enumerate(source.slots()) if raster >= 0}
    padding = source.num_slots
    index = b.constant(
        ("take", source, target),
        "slots",
        lambda: torch.tensor([where[raster] if raster >= 0 else padding for raster in target.slots()]),
    )
    return b.call(node, torch_ops.take_padded if target.padded else torch_ops.take, x, index)


def _slice(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    """Slices that cut a value as a whole are one split, whose gradient is one concatenation."""
    op, source = op_of(node, Slice), node.inputs[0]
    slices = b.splits.get(source)
    if slices:
        if source not in b.split:
            sizes = [part.stop - part.start for part in slices]
            b.split[source] = b.code.call_function(torch.split, (*args, sizes), {"dim": -1})
        return b.call(node, operator.getitem, b.split[source], slices.index(op))
    return b.call(node, operator.getitem, *args, (Ellipsis, slice(op.start, op.stop)))


def _take_token(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, operator.getitem, *args, (slice(None), op_of(node, TakeToken).position))


def _mean_pool(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    axes = (2, 3) if isinstance(node.inputs[0].type.order, Planes) else (1,)
    return b.call(node, torch.mean, *args, axes)


EMITTERS: Emitters = {
    Reorder: _reorder,
    MergeGroups: lambda b, node, args: b.call(node, torch.reshape, *args, (-1, *node.type.shape)),
    Slice: _slice,
    PrependToken: lambda b, node, args: b.call(node, torch_ops.prepend, b.parameter(node), *args),
    AppendOnes: lambda b, node, args: b.call(
        node, functional.pad, *args, (0, op_of(node, AppendOnes).width), value=1.0
    ),
    AddPosition: lambda b, node, args: b.call(node, operator.add, *args, b.parameter(node)),
    TakeToken: _take_token,
    MeanPool: _mean_pool,
}
