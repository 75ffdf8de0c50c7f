"""Attention and what is added to its logits."""

from __future__ import annotations

import torch
from torch import fx

from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask, places_first, windows_in


def _attention(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op, (q, k, v, *bias) = op_of(node, Attention), args
    windows, turned = windows_in(node.inputs[0].type), places_first(node.type)
    if turned:
        q, k, v = (b.call(node, torch_ops.turned, x, windows, windows_last=True) for x in (q, k, v))
    mixed = b.call(
        node, torch_ops.attend, *(q, k, v, bias[0] if bias else None), heads=op.heads, windows=windows, scale=op.scale
    )
    return b.call(node, torch_ops.turned, mixed, windows, windows_last=False) if turned else mixed


def _position_bias(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, RelativePositionBias)
    area = op.window[0] * op.window[1]
    rows = b.constant(("rows", op.window), "rows", lambda: torch.tensor(op.rows()).view(area, area))
    return b.call(node, torch_ops.position_bias, b.parameter(node), rows)


def _shift_mask(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, ShiftMask)
    return b.constant(("mask", op.order), "mask", lambda: torch.from_numpy(op.value([], {})))


EMITTERS: Emitters = {
    Attention: _attention,
    RelativePositionBias: _position_bias,
    ShiftMask: _shift_mask,
}
