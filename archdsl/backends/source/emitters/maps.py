"""Maps out of sequences in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import late
from archdsl.backends.source.writer import Emitter, Expression, Writer
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.maps import TakeMap


def _take_map(w: Writer, node: Node, op: TakeMap, x: Expression) -> Expression:
    return Expression(f"{x.atom}[:, {late('first', op.first)}:]", x.depth)


EMITTERS: dict[type[Op], Emitter] = {TakeMap: _take_map}
