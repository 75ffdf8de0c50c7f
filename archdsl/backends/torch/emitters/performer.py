"""Unfolded maps and attention by random features."""

from __future__ import annotations

from torch import fx

from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ir.order import Raster
from archdsl.ops.performer import LinearAttention, PositiveFeatures, Unfold


def _unfold(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op, order = op_of(node, Unfold), node.inputs[0].type.order
    assert isinstance(order, Raster)
    return b.call(node, torch_ops.unfold, *args, (order.height, order.width), op.kernel, op.stride, op.padding)


def _features(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, torch_ops.positive_features, *args, b.parameter(node), op_of(node, PositiveFeatures).parts)


def _attention(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, torch_ops.linear_attention, *args, op_of(node, LinearAttention).eps)


EMITTERS: Emitters = {Unfold: _unfold, PositiveFeatures: _features, LinearAttention: _attention}
