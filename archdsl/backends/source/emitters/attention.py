"""Attention, and what is added to its logits, in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.emitters import no_emitter
from archdsl.backends.source.text import late, number
from archdsl.backends.source.writer import Emitter, Expression, Writer, start
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask, places_first


def _attention(w: Writer, node: Node, op: Attention, q: Expression, k: Expression, *v_bias: Expression) -> Expression:
    if places_first(node.type):
        raise no_emitter("source", node)  # a form for deploying; source files hold the train form
    scale = op.scale * (node.inputs[0].type.channels // op.heads) ** 0.5  # `attend` divides by sqrt(d)
    q = q if abs(scale - 1) < 1e-12 else Expression(f"{q.atom} * {late('scale', scale)}", q.depth, infix=True)
    v, *bias = v_bias
    return w.call("attend", q, k, v, more="".join((f", {late('heads', op.heads)}", *(f", {x.text}" for x in bias))))


def _position_bias(w: Writer, node: Node, op: RelativePositionBias) -> Expression:
    window = number("window", w.sides(op.window))
    rows = f"(2 * {window} - 1) ** 2" if w.layouts.square else f"(2 * {window}[0] - 1) * (2 * {window}[1] - 1)"
    table = w.parameter(node, start(op.init, f"{rows}, {number('heads', op.heads)}"))
    index = w.buffer("relative_position_index", f"relative_position_index({window})")
    return Expression(f"{table}[{index}].permute(2, 0, 1)[None]", 1, name="bias")


def _shift_mask(w: Writer, node: Node, op: ShiftMask) -> Expression:
    order = op.order
    sides = {"size": (order.height, order.width), "window": order.window, "shift": order.shift}
    made = ", ".join(number(name, w.sides(value)) for name, value in sides.items())
    return Expression(w.buffer("mask", f"shift_mask({made})"))


EMITTERS: dict[type[Op], Emitter] = {
    Attention: _attention,
    RelativePositionBias: _position_bias,
    ShiftMask: _shift_mask,
}
