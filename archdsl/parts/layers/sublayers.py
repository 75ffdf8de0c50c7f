"""Layers that blocks share: a norm by name, an MLP, self-attention, a residual branch."""

# N = tokens, C = width, F = hidden width

from __future__ import annotations

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.norm import BatchNorm, LayerNorm, TokenBatchNorm
from archdsl.ops.pointwise import Activation, Add, DropPath
from archdsl.ops.tokens import Slice
from archdsl.parts.fields import ActivationName, NormAxis, NormName


def norm(g: Scope, x: Value, kind: NormName, *, axis: NormAxis, eps: float, name: str, start: float = 1.0) -> Value:
    """The norm called `kind`, or x for `none`.

    Args:
        axis: of batch norm: one statistic for each channel, or for each token position
        eps: added to the variance
        start: what the weight of a layer norm starts at
    """
    match kind, axis:
        case "none", _:
            return x
        case "layer", _:
            return g.add(LayerNorm(x.type.channels, eps, start=start), x, name=name)
        case "batch", "channel":
            return g.add(BatchNorm(x.type.channels, eps), x, name=name)
        case _:
            return g.add(TokenBatchNorm(x.type.tokens, eps), x, name=name)


def mlp(g: Scope, x_NC: Value, ratio: float, act: ActivationName) -> Value:
    """Widen, activate, narrow: [N, C] -> [N, F] -> [N, C], with F = int(C * ratio).

    Raises: RuleBroken when F is less than 1
    """
    dim = x_NC.type.channels
    hidden = int(dim * ratio)
    if hidden < 1:
        raise RuleBroken(
            f"the MLP's hidden width must be at least 1, but mlp_ratio {ratio:g} of width {dim} is {hidden}",
            field="mlp_ratio",
            hint="raise mlp_ratio",
            rule="out-of-range",
        )
    h_NF = g.add(Linear(dim, hidden), x_NC, name="mlp.fc1")
    a_NF = g.add(Activation(act), h_NF, name="mlp.act")
    return g.add(Linear(hidden, dim), a_NF, name="mlp.fc2")


def self_attention(g: Scope, x_NC: Value, heads: int, *, qkv_bias: bool, bias: Value | None = None) -> Value:
    """Multi-head self-attention within the windows of x's order: [N, C] -> [N, C].

    Args:
        bias: added to the logits, [1 or windows, heads, places, places]

    Source: arXiv 1706.03762
    """
    dim = x_NC.type.channels
    qkv = g.add(Linear(dim, 3 * dim, bias=qkv_bias), x_NC, name="attn.qkv")
    q, k, v = (g.add(Slice(i * dim, (i + 1) * dim), qkv, name=f"attn.{name}") for i, name in enumerate("qkv"))
    scale = (dim // heads) ** -0.5
    mixed = g.add(Attention(heads, scale), q, k, v, *([bias] if bias else []), name="attn.attend")
    return g.add(Linear(dim, dim), mixed, name="attn.proj")


def residual(g: Scope, x: Value, branch: Value, drop_path: float | None) -> Value:
    """x + branch; in training the branch is zeroed for a whole image with probability `drop_path`."""
    branch = g.add_unless(not drop_path, DropPath(drop_path or 0.0), branch)
    return g.add(Add(), x, branch)


def check_heads(dim: int, heads: int) -> None:
    """Raise RuleBroken unless `heads` divides `dim`, naming the nearest number that does."""
    if dim % heads:
        nearest = min((h for h in range(1, dim + 1) if dim % h == 0), key=lambda h: (abs(h - heads), h))
        raise RuleBroken(
            f"heads must divide the width, but got heads {heads} at width {dim}",
            field="heads",
            hint=f"the nearest number of heads that divides {dim} is {nearest}",
            rule="divisible",
        )
