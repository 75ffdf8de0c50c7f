"""Maps out of sequences as slices."""

from __future__ import annotations

import operator

from torch import fx

from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ops.maps import TakeMap


def _take_map(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, operator.getitem, *args, (slice(None), slice(op_of(node, TakeMap).first, None)))


EMITTERS: Emitters = {TakeMap: _take_map}
