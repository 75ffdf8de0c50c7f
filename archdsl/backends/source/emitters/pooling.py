"""Pooling and resizing in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import late
from archdsl.backends.source.writer import Emitter, Expression, Writer
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.pooling import AdaptivePool, Pool2d, Resize


def _pool(w: Writer, node: Node, op: Pool2d, x: Expression) -> Expression:
    more = f", {late('kernel', op.kernel)}, {late('stride', op.stride)}, {late('padding', op.padding)}"
    more += ", ceil_mode=True" if op.ceil else ""
    more += "" if op.pool == "max" else ", count_include_pad=False"
    return w.call(f"F.{op.pool}_pool2d", x, more=more)


def _adaptive_pool(w: Writer, node: Node, op: AdaptivePool, x: Expression) -> Expression:
    return w.call("F.adaptive_avg_pool2d", x, more=f", {late('size', (op.height, op.width))}")


def _resize(w: Writer, node: Node, op: Resize, x: Expression) -> Expression:
    more = f", {late('size', (op.height, op.width))}, mode={op.mode!r}".replace("'", '"')
    more += f", align_corners={op.align_corners}" if op.mode == "bilinear" else ""
    return w.call("F.interpolate", x, more=more)


EMITTERS: dict[type[Op], Emitter] = {Pool2d: _pool, AdaptivePool: _adaptive_pool, Resize: _resize}
