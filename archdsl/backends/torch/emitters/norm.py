"""Norms as torch's modules; what deploying leaves of them as one fused multiply-add."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn import functional

from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.builder import Emitters, ModuleBuilder, op_of
from archdsl.ir.graph import Node
from archdsl.ir.order import Planes
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, LayerNormWithOnes, Shift, TokenAffine, TokenBatchNorm


def _layer_norm(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, LayerNorm)
    return b.module(node, nn.LayerNorm(op.dim, op.eps, elementwise_affine=op.affine), *args)


def _layer_norm_with_ones(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, LayerNormWithOnes)
    plain = b.call(node, functional.layer_norm, *args, (op.dim,), eps=op.eps)
    return b.call(node, functional.pad, plain, (0, op.width), value=1.0)


def _batch_norm(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, BatchNorm)
    if isinstance(node.type.order, Planes):
        return b.module(node, nn.BatchNorm2d(op.dim, op.eps, op.momentum), *args)
    return b.module(node, torch_ops.ChannelBatchNorm(op.dim, op.eps, op.momentum), *args)


def _token_batch_norm(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    op = op_of(node, TokenBatchNorm)
    return b.module(node, nn.BatchNorm1d(op.num_tokens, op.eps, op.momentum), *args)


def _affine(b: ModuleBuilder, node: Node, args: list[fx.Node]) -> fx.Node:
    weight, bias = (b.parameter(node, key) for key in ("weight", "bias"))
    if isinstance(node.type.order, Planes):
        weight, bias = (b.code.call_function(torch.Tensor.view, (each, -1, 1, 1)) for each in (weight, bias))
    elif isinstance(node.op, TokenAffine):
        weight, bias = (b.code.call_function(torch.unsqueeze, (each, -1)) for each in (weight, bias))
    return b.call(node, torch.addcmul, bias, *args, weight)


EMITTERS: Emitters = {
    LayerNorm: _layer_norm,
    LayerNormWithOnes: _layer_norm_with_ones,
    BatchNorm: _batch_norm,
    TokenBatchNorm: _token_batch_norm,
    Affine: _affine,
    TokenAffine: _affine,
    Shift: lambda b, node, args: b.call(node, torch.add, *args, b.parameter(node)),
}
