"""Pooling as torch's functions."""

from __future__ import annotations

from torch import fx
from torch.nn import functional as F

from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ops.pooling import Pool2d


def _pool(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, Pool2d)
    if op.pool == "max":
        return b.call(node, F.max_pool2d, *args, op.kernel, op.stride, op.padding, ceil_mode=op.ceil)
    sides = (op.kernel, op.stride, op.padding)
    return b.call(node, F.avg_pool2d, *args, *sides, ceil_mode=op.ceil, count_include_pad=False)


EMITTERS: Emitters = {Pool2d: _pool}
