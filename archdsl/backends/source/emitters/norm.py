"""Norms, and what is left of them at inference, in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.source.text import channels, number, option
from archdsl.backends.source.writer import Emitter, Expression, Writer
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, LayerNormWithOnes, TokenAffine, TokenBatchNorm


def _layer_norm(w: Writer, node: Node, op: LayerNorm, x: Expression) -> Expression:
    more = option("eps", op.eps, 1e-5) + ("" if op.affine else ", elementwise_affine=False")
    return w.module(node, f"nn.LayerNorm({channels(op.dim)}{more})", x)


def _layer_norm_with_ones(w: Writer, node: Node, op: LayerNormWithOnes, x: Expression) -> Expression:
    plain = w.call("functional.layer_norm", x, more=f", ({channels(op.dim)},){option('eps', op.eps, 1e-5)}")
    return w.call("functional.pad", plain, more=f", (0, {op.width}), value=1.0")


def _batch_norm(w: Writer, node: Node, op: BatchNorm, x: Expression) -> Expression:
    more = option("eps", op.eps, 1e-5) + option("momentum", op.momentum, 0.1)
    return w.module(node, f"ChannelBatchNorm({channels(op.dim)}{more})", x)


def _token_batch_norm(w: Writer, node: Node, op: TokenBatchNorm, x: Expression) -> Expression:
    more = option("eps", op.eps, 1e-5) + option("momentum", op.momentum, 0.1)
    return w.module(node, f"nn.BatchNorm1d({number('num_tokens', op.num_tokens)}{more})", x)


EMITTERS: dict[type[Op], Emitter] = {
    LayerNorm: _layer_norm,
    LayerNormWithOnes: _layer_norm_with_ones,
    BatchNorm: _batch_norm,
    TokenBatchNorm: _token_batch_norm,
    Affine: lambda w, node, op, x: w.module(node, f"Affine({channels(op.dim)})", x),
    TokenAffine: lambda w, node, op, x: w.module(node, f"TokenAffine({number('num_tokens', op.num_tokens)})", x),
}
