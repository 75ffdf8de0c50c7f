"""Norms, and what is left of them at inference, in plain PyTorch."""

from __future__ import annotations

from archdsl.backends.emitters import no_emitter
from archdsl.backends.source.text import channels, number, option
from archdsl.backends.source.writer import Emitter, Expression, Writer
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ir.order import Planes
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, LayerNormWithOnes, Shift, TokenAffine, TokenBatchNorm


def _layer_norm(w: Writer, node: Node, op: LayerNorm, x: Expression) -> Expression:
    more = option("eps", op.eps, 1e-5) + ("" if op.affine else ", elementwise_affine=False")
    made = w.module(node, f"nn.LayerNorm({channels(op.dim)}{more})", x)
    if op.affine:
        _started(w, node, op.start)
    return made


def _started(w: Writer, node: Node, start: float) -> None:
    """What the weight of a norm starts at, where that is not 1."""
    if start != 1:
        w.init.append(f"nn.init.constant_({w.holder(node.path)}.weight, {number('start', start)})")


def _layer_norm_with_ones(w: Writer, node: Node, op: LayerNormWithOnes, x: Expression) -> Expression:
    plain = w.call("functional.layer_norm", x, more=f", ({channels(op.dim)},){option('eps', op.eps, 1e-5)}")
    return w.call("functional.pad", plain, more=f", (0, {op.width}), value=1.0")


def _batch_norm(w: Writer, node: Node, op: BatchNorm, x: Expression) -> Expression:
    more = option("eps", op.eps, 1e-5) + option("momentum", op.momentum, 0.1)
    kind = "nn.BatchNorm2d" if isinstance(node.type.order, Planes) else "ChannelBatchNorm"
    made = w.module(node, f"{kind}({channels(op.dim)}{more})", x)
    _started(w, node, op.start)
    return made


def _token_batch_norm(w: Writer, node: Node, op: TokenBatchNorm, x: Expression) -> Expression:
    more = option("eps", op.eps, 1e-5) + option("momentum", op.momentum, 0.1)
    return w.module(node, f"nn.BatchNorm1d({number('num_tokens', op.num_tokens)}{more})", x)


def _shift(w: Writer, node: Node, op: Shift, x: Expression) -> Expression:
    return Expression(f"{x.text} + {w.parameter(node, f'torch.zeros({channels(op.dim)})')}", x.depth, infix=True)


def _affine(w: Writer, node: Node, op: Affine, x: Expression) -> Expression:
    if isinstance(node.type.order, Planes):
        raise no_emitter("source", node)  # a form for deploying; source files hold the train form
    return w.module(node, f"Affine({channels(op.dim)})", x)


EMITTERS: dict[type[Op], Emitter] = {
    LayerNorm: _layer_norm,
    LayerNormWithOnes: _layer_norm_with_ones,
    BatchNorm: _batch_norm,
    TokenBatchNorm: _token_batch_norm,
    Shift: _shift,
    Affine: _affine,
    TokenAffine: lambda w, node, op, x: w.module(node, f"TokenAffine({number('num_tokens', op.num_tokens)})", x),
}
