"""LeViT: attention with a batch norm behind every linear layer, a bias by distance, and maps halved by attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Raster
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.norm import BatchNorm
from archdsl.ops.pointwise import Activation
from archdsl.ops.subsampling import OffsetBias, Subsample
from archdsl.ops.tokens import Slice
from archdsl.parts.families.levit_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Dim, Eps, Heads, Rate, Ratio
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import residual
from archdsl.parts.part import Block, Downsample, register

KeyDim = Annotated[Dim, Field(description="channels of a head's queries and keys")]


@register("levit")
class LevitBlock(Block):
    """x += attention(x); x += mlp(x), each linear layer of them with a batch norm. The last norms start at 0.

    heads: of any number, since q, k and v have widths of their own
    value_ratio: channels of a head's values, as a multiple of `key_dim`

    Source: LeViT, arXiv 2104.01136
    """

    weight_names = WEIGHT_NAMES

    heads: Heads
    key_dim: KeyDim
    value_ratio: Ratio = 2.0
    mlp_ratio: Ratio = 2.0
    act: ActivationName = "hardswish"
    norm_eps: Eps = 1e-5
    drop_path: Rate | None = None

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        key, value = self.heads * self.key_dim, self.heads * _width(self.key_dim, self.value_ratio, "value_ratio")
        qkv = _normed(g, x, 2 * key + value, "attn.qkv", self.norm_eps)
        q, k = (g.add(Slice(i * key, (i + 1) * key), qkv, name=f"attn.{name}") for i, name in enumerate("qk"))
        v = g.add(Slice(2 * key, 2 * key + value), qkv, name="attn.v")
        bias = g.add(OffsetBias(_map_of(x), self.heads), name="attn.offset_bias")
        y = g.add(Attention(self.heads, self.key_dim**-0.5), q, k, v, bias, name="attn.attend")
        y = g.add(Activation(self.act), y, name="attn.act")
        y = _normed(g, y, x.type.channels, "attn.proj", self.norm_eps, start=0.0)
        x = residual(g, x, y, self.drop_path)
        return flow.to(_with_mlp(g, x, self))


@register("levit_shrink")
class LevitShrink(Downsample):
    """Attention of every second row and column to the whole map, without a residual; then x += mlp(x).

    There are as many heads as the width before has room for keys.

    value_ratio: channels of a head's values, as a multiple of `key_dim`
    stride: how many rows and columns become one

    Source: LeViT, arXiv 2104.01136, section 4.2
    """

    key_dim: KeyDim
    value_ratio: Ratio = 4.0
    mlp_ratio: Ratio = 2.0
    stride: Annotated[int, Field(ge=1, le=31)] = 2
    act: ActivationName = "hardswish"
    norm_eps: Eps = 1e-5
    drop_path: Rate | None = None

    def lower(self, g: Scope, flow: Flow, dim: int) -> Flow:
        x = as_tokens(g, flow.x)
        heads = x.type.channels // self.key_dim
        if heads < 1:
            raise RuleBroken(
                f"key_dim may be as much as the width, but got {self.key_dim} at width {x.type.channels}",
                field="key_dim",
                hint=f"use {x.type.channels} or less",
                rule="out-of-range",
            )
        key, value = heads * self.key_dim, heads * _width(self.key_dim, self.value_ratio, "value_ratio")
        bias = g.add(OffsetBias(_map_of(x), heads, self.stride), name="shrink.offset_bias")
        kv = _normed(g, x, key + value, "shrink.kv", self.norm_eps)
        k, v = g.add(Slice(0, key), kv, name="shrink.k"), g.add(Slice(key, key + value), kv, name="shrink.v")
        q = _normed(g, g.add(Subsample(self.stride), x, name="shrink.subsample"), key, "shrink.q", self.norm_eps)
        y = g.add(Attention(heads, self.key_dim**-0.5), q, k, v, bias, name="shrink.attend")
        y = g.add(Activation(self.act), y, name="shrink.act")
        return flow.to(_with_mlp(g, _normed(g, y, dim, "shrink.proj", self.norm_eps), self))


def _with_mlp(g: Scope, x: Value, part: LevitBlock | LevitShrink) -> Value:
    """x + mlp(x)"""
    y = _normed(g, x, _width(x.type.channels, part.mlp_ratio, "mlp_ratio"), "mlp.fc1", part.norm_eps)
    y = g.add(Activation(part.act), y, name="mlp.act")
    y = _normed(g, y, x.type.channels, "mlp.fc2", part.norm_eps, start=0.0)
    return residual(g, x, y, part.drop_path)


def _normed(g: Scope, x: Value, dim: int, name: str, eps: float, *, start: float = 1.0) -> Value:
    """A linear layer without a bias, and a batch norm whose weight starts at `start`."""
    y = g.add(Linear(x.type.channels, dim, bias=False), x, name=name)
    return g.add(BatchNorm(dim, eps, start=start), y, name=f"{name}_norm")


def _map_of(x: Value) -> tuple[int, int]:
    """Height and width of the map that the tokens are of. Raises: RuleBroken when they are no map"""
    if not isinstance(x.type.order, Raster):
        raise RuleBroken(f"biases by distance need a map, but got {x.type}", hint="use a stem without a class token")
    return x.type.order.height, x.type.order.width


def _width(dim: int, ratio: float, field: str) -> int:
    """`ratio` times `dim`. Raises: RuleBroken when that is less than 1"""
    if int(dim * ratio) < 1:
        raise RuleBroken(
            f"{field} {ratio:g} of width {dim} must be at least 1",
            field=field,
            hint=f"raise {field}",
            rule="out-of-range",
        )
    return int(dim * ratio)
