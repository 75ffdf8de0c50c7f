from __future__ import annotations

from archdsl.ops.toys import SquaredScale

from archdsl.backends.source.text import channels
from archdsl.backends.source.writer import Emitter, Expression, Writer, start
from archdsl.ir.graph import Node
from archdsl.ir.op import Op


def _squared_scale(w: Writer, node: Node, op: SquaredScale, x: Expression) -> Expression:
    held = w.parameter(node, start(op.tensors()[""].init, channels(op.dim)))
    return Expression(f"{x.atom}.square() * {held}", x.depth, infix=True)


EMITTERS: dict[type[Op], Emitter] = {SquaredScale: _squared_scale}
