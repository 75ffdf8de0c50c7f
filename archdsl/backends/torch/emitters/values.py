"""The network's input, constants and casts."""

from __future__ import annotations

import torch
from torch import fx
from torch.nn import functional as F

from archdsl.backends.torch.builder import DTYPES, Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Input, Node
from archdsl.ops.norm import LayerNorm
from archdsl.ops.values import Cast, Constant


def _cast(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    """A plain layer norm in an island of fp32 is torch's of the format around it: its statistics are fp32 anyway."""
    norm, to = node.inputs[0], op_of(node, Cast).to
    if isinstance(norm.op, LayerNorm) and not norm.op.affine and isinstance(norm.inputs[0].op, Cast):
        before = norm.inputs[0].inputs[0]
        if before.type.dtype == to:
            x = args[0].args[0].args[0]  # type: ignore[union-attr]
            return b.call(node, F.layer_norm, x, (norm.op.dim,), eps=norm.op.eps)
    return b.call(node, torch.Tensor.to, *args, DTYPES[to])


EMITTERS: Emitters = {
    Input: lambda b, node, args: b.code.placeholder(node.path),
    Constant: lambda b, node, args: b.parameter(node),
    Cast: _cast,
}
