from __future__ import annotations

import operator

import torch
from archdsl.ops.toys import SquaredScale
from torch import fx

from archdsl.backends.torch.builder import Emitters, ModuleBuilder
from archdsl.ir.graph import Node


def _squared_scale(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, operator.mul, b.code.call_function(torch.square, tuple(args)), b.parameter(node))


EMITTERS: Emitters = {SquaredScale: _squared_scale}
