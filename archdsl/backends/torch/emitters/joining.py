"""Products, differences and channels side by side."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from archdsl.backends.torch.builder import Emitters, ModuleBuilder
from archdsl.ir.graph import Node
from archdsl.ir.order import Planes
from archdsl.ops.joining import AddVector, Concat, Mul, MulVector, Sub


def _with_vector(join: Callable[..., Any]) -> Callable[[ModuleBuilder, Node, list[fx.Node]], fx.Node]:
    def emit(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
        x, v = args
        everywhere = b.call(node, operator.getitem, v, (slice(None), slice(None), None, None))
        return b.call(node, join, x, everywhere)

    return emit


def _concat(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, torch.cat, tuple(args), dim=1 if isinstance(node.type.order, Planes) else -1)


EMITTERS: Emitters = {
    Mul: lambda b, node, args: b.call(node, operator.mul, *args),
    Sub: lambda b, node, args: b.call(node, operator.sub, *args),
    MulVector: _with_vector(operator.mul),
    AddVector: _with_vector(operator.add),
    Concat: _concat,
}
