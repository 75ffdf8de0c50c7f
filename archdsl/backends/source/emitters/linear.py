"""Linear and Conv2d in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import channels, number, option
from archdsl.backends.source.writer import Emitter, Expression, Writer
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.linear import Conv2d, Linear


def _linear(w: Writer, node: Node, op: Linear, x: Expression) -> Expression:
    bias = "" if op.bias else ", bias=False"
    return w.module(node, f"nn.Linear({channels(op.d_in)}, {channels(op.d_out)}{bias})", x)


def _conv(w: Writer, node: Node, op: Conv2d, x: Expression) -> Expression:
    made = f"nn.Conv2d({channels(op.c_in)}, {channels(op.c_out)}, kernel_size={number('kernel', op.kernel)}"
    made += option("stride", op.stride, 1) + option("padding", op.padding, 0)
    made += option("dilation", op.dilation, 1)
    if op.groups > 1:
        depthwise = op.groups in (op.c_in, op.c_out)
        made += f", groups={number('channels' if depthwise else 'groups', op.groups)}"
    return w.module(node, f"{made}{'' if op.bias else ', bias=False'})", x)


EMITTERS: dict[type[Op], Emitter] = {Linear: _linear, Conv2d: _conv}
