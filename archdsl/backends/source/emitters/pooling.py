"""Pooling in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import late
from archdsl.backends.source.writer import Emitter, Expression, Writer
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.pooling import Pool2d


def _pool(w: Writer, node: Node, op: Pool2d, x: Expression) -> Expression:
    more = f", {late('kernel', op.kernel)}, {late('stride', op.stride)}, {late('padding', op.padding)}"
    more += ", ceil_mode=True" if op.ceil else ""
    more += "" if op.pool == "max" else ", count_include_pad=False"
    return w.call(f"F.{op.pool}_pool2d", x, more=more)


EMITTERS: dict[type[Op], Emitter] = {Pool2d: _pool}
