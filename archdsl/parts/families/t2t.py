"""T2T-ViT's stem: tokens from overlapping patches of tokens, with attention between two steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ir.op import Init
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.norm import LayerNorm
from archdsl.ops.performer import LinearAttention, PositiveFeatures, Unfold
from archdsl.ops.pointwise import Add
from archdsl.ops.tokens import AddPosition, PrependToken, Slice
from archdsl.parts.fields import ActivationName, Dim, Eps
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import mlp
from archdsl.parts.part import Stem, register


@register("t2t")
class TokensToTokenStem(Stem):
    """Unfold 7x7 every 4 places, attend, unfold 3x3 every 2, attend, unfold 3x3 every 2, and map to `dim` channels.

    inner_dim: channels of the tokens between two steps
    attention: `performer` by random features, in time that grows with the tokens; or `softmax`, with their square
    cls: put a class token before the others
    position: `sine` adds fixed waves to each token, `learned` a learnt vector

    Source: T2T-ViT, arXiv 2101.11986, section 3.1
    """

    dim: Dim
    inner_dim: Dim = 64
    attention: Literal["performer", "softmax"] = "performer"
    act: ActivationName = "gelu"
    norm_eps: Eps = 1e-5
    cls: bool = False
    position: Literal["sine", "learned", "none"] = "none"

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = g.add(Unfold(7, 4, 2), as_tokens(g, flow.x), name="unfold1")
        x = self._transform(g.at("transformer1"), x)
        x = g.add(Unfold(3, 2, 1), x, name="unfold2")
        x = self._transform(g.at("transformer2"), x)
        x = g.add(Unfold(3, 2, 1), x, name="unfold3")
        x = g.add(Linear(x.type.channels, self.dim), x, name="project")
        if self.cls:
            x = g.add(PrependToken(self.dim, Init("normal", 0.02)), x, name="cls_token")
        if self.position != "none":
            x = g.add(AddPosition(x.type.tokens, self.dim, fixed=self.position == "sine"), x, name="pos_embed")
        return replace(flow, x=x, tokens=("cls",) if self.cls else ())

    def _transform(self, g: Scope, x: Value) -> Value:
        """[N, C] -> [N, inner_dim]. The attention's v takes the place of x in the sum, since x is wider."""
        y = g.add(LayerNorm(x.type.channels, self.norm_eps), x, name="norm1")
        x = self._performer(g, y) if self.attention == "performer" else self._softmax(g, y)
        y = g.add(LayerNorm(self.inner_dim, self.norm_eps), x, name="norm2")
        return g.add(Add(), x, mlp(g, y, 1, self.act))

    def _performer(self, g: Scope, x: Value) -> Value:
        """v + proj(attention), the attention by positive random features of q and k."""
        dim, features = self.inner_dim, self.inner_dim // 2
        if features < 1:
            raise RuleBroken(
                "a performer needs inner_dim 2 or more, half of which are its features",
                field="inner_dim",
                hint="use 2 or more",
                rule="out-of-range",
            )
        kqv = g.add(Linear(x.type.channels, 3 * dim), x, name="kqv")
        both, v = g.add(Slice(0, 2 * dim), kqv, name="kq"), g.add(Slice(2 * dim, 3 * dim), kqv, name="v")
        both = g.add(PositiveFeatures(dim, features, parts=2), both, name="w")
        k, q = g.add(Slice(0, features), both, name="k"), g.add(Slice(features, 2 * features), both, name="q")
        y = g.add(LinearAttention(), q, k, v, name="attend")
        return g.add(Add(), v, g.add(Linear(dim, dim), y, name="proj"))

    def _softmax(self, g: Scope, x: Value) -> Value:
        """v + proj(attention), of one head whose logits are scaled by the width before, not by its own."""
        dim = self.inner_dim
        qkv = g.add(Linear(x.type.channels, 3 * dim, bias=False), x, name="qkv")
        q, k, v = (g.add(Slice(i * dim, (i + 1) * dim), qkv, name=name) for i, name in enumerate("qkv"))
        y = g.add(Attention(1, x.type.channels**-0.5), q, k, v, name="attend")
        return g.add(Add(), v, g.add(Linear(dim, dim), y, name="proj"))
