"""Heads of length 1 and continuous position biases in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import late, number
from archdsl.backends.source.writer import Emitter, Expression, Writer, start
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.cosine import SHARPEST, ContinuousPositionBias, HeadNorm


def _head_norm(w: Writer, node: Node, op: HeadNorm, x: Expression) -> Expression:
    more = f", {late('heads', op.heads)}"
    if op.scaled:
        shape = f"{number('heads', op.heads)}, 1, 1"
        more += f", {w.parameter(node, start(op.tensors()[''].init, shape))}"
    return w.call("head_norm", x, more=more)


def _position_bias(w: Writer, node: Node, op: ContinuousPositionBias) -> Expression:
    window, heads = number("window", w.sides(op.window)), number("heads", op.heads)
    whole = number("pretrained", w.sides(op.pretrained))
    index = w.buffer("relative_position_index", f"relative_position_index({window})")
    offsets = w.buffer("offsets", f"log_offsets({window}, {whole})")
    layers = f"nn.Linear(2, {op.hidden}), nn.ReLU(), nn.Linear({op.hidden}, {heads}, bias=False)"
    table = w.module(node, f"nn.Sequential({layers})", Expression(offsets)).text
    return Expression(f"({SHARPEST:g} * torch.sigmoid({table}))[{index}].permute(2, 0, 1)[None]", 1, name="bias")


EMITTERS: dict[type[Op], Emitter] = {HeadNorm: _head_norm, ContinuousPositionBias: _position_bias}
