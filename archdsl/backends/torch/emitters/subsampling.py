"""Subsampled maps and biases by distance."""

from __future__ import annotations

import torch
from torch import fx

from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ir.order import Raster
from archdsl.ops.subsampling import OffsetBias, Subsample


def _subsample(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op, order = op_of(node, Subsample), node.inputs[0].type.order
    assert isinstance(order, Raster)
    slots = b.constant(("subsample", order, op.stride), "slots", lambda: torch.tensor(op.places(order)))
    return b.call(node, torch_ops.take, *args, slots)


def _offset_bias(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, OffsetBias)
    columns = b.constant(("columns", op.map, op.stride), "columns", lambda: torch.from_numpy(op.columns()))
    return b.call(node, torch_ops.offset_bias, b.parameter(node), columns)


EMITTERS: Emitters = {Subsample: _subsample, OffsetBias: _offset_bias}
