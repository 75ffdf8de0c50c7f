"""Heads of length 1 and continuous position biases."""

from __future__ import annotations

import torch
from torch import fx

from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ops.cosine import MOST_LOG_SCALE, SHARPEST, ContinuousPositionBias, HeadNorm


def _head_norm(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, HeadNorm)
    scale = (b.parameter(node), MOST_LOG_SCALE) if op.scaled else ()
    return b.call(node, torch_ops.head_norm, *args, op.heads, op.eps, *scale)


def _position_bias(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, ContinuousPositionBias)
    area = op.window[0] * op.window[1]
    rows = b.constant(("rows", op.window), "rows", lambda: torch.tensor(op.rows()).view(area, area))
    key = ("offsets", op.window, op.pretrained)
    offsets = b.constant(key, "offsets", lambda: torch.from_numpy(op.offsets()))
    weights = (b.parameter(node, each) for each in op.tensors())
    return b.call(node, torch_ops.continuous_position_bias, offsets, *weights, rows, SHARPEST)


EMITTERS: Emitters = {HeadNorm: _head_norm, ContinuousPositionBias: _position_bias}
