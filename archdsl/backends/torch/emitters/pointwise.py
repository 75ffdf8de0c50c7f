"""Activations, sums and factors."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ops.pointwise import Activation, Add, Average, Dropout, DropPath, LayerScale


def _activation(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    match op_of(node, Activation).name:
        case "gelu_tanh":
            return b.call(node, F.gelu, *args, approximate="tanh")
        case "sigmoid":
            return b.call(node, torch.sigmoid, *args)
        case name:
            return b.call(node, getattr(F, name), *args)


EMITTERS: Emitters = {
    Activation: _activation,
    Add: lambda b, node, args: b.call(node, operator.add, *args),
    Average: lambda b, node, args: b.call(node, torch_ops.average, *args),
    LayerScale: lambda b, node, args: b.call(node, operator.mul, *args, b.parameter(node)),
    DropPath: lambda b, node, args: b.module(node, torch_ops.StochasticDepth(op_of(node, DropPath).rate), *args),
    Dropout: lambda b, node, args: b.module(node, nn.Dropout(op_of(node, Dropout).rate), *args),
}
