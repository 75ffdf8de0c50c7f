"""Linear and Conv2d as torch's own modules."""

from __future__ import annotations

from torch import fx, nn

from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ops.linear import Conv2d, Linear


def _linear(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, Linear)
    return b.module(node, nn.Linear(op.d_in, op.d_out, bias=op.bias, device="meta"), *args)


def _conv(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, Conv2d)
    sides = (op.c_in, op.c_out, op.kernel, op.stride, op.padding)
    return b.module(node, nn.Conv2d(*sides, op.dilation, groups=op.groups, bias=op.bias, device="meta"), *args)


EMITTERS: Emitters = {
    Linear: _linear,
    Conv2d: _conv,
}
