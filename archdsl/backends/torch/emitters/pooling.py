"""Pooling and resizing as torch's functions."""

from __future__ import annotations

from torch import fx
from torch.nn import functional as F

from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ops.pooling import AdaptivePool, Pool2d, Resize


def _pool(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, Pool2d)
    if op.pool == "max":
        return b.call(node, F.max_pool2d, *args, op.kernel, op.stride, op.padding, ceil_mode=op.ceil)
    sides = (op.kernel, op.stride, op.padding)
    return b.call(node, F.avg_pool2d, *args, *sides, ceil_mode=op.ceil, count_include_pad=False)


def _adaptive_pool(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, AdaptivePool)
    return b.call(node, F.adaptive_avg_pool2d, *args, (op.height, op.width))


def _resize(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, Resize)
    how = {"align_corners": op.align_corners} if op.mode == "bilinear" else {}
    return b.call(node, F.interpolate, *args, size=(op.height, op.width), mode=op.mode, **how)


EMITTERS: Emitters = {Pool2d: _pool, AdaptivePool: _adaptive_pool, Resize: _resize}
