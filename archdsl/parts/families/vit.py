"""The pre-norm transformer block of ViT: attention over all tokens."""

from __future__ import annotations

from archdsl.ir.graph import Scope
from archdsl.parts.families.vit_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Eps, Heads, NormAxis, NormName, Rate, Ratio
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import check_heads, mlp, norm, residual, self_attention
from archdsl.parts.part import Block, register


@register("vit")
class VitBlock(Block):
    """x += attention(norm(x)) over all tokens; x += mlp(norm(x)).

    Source: ViT, arXiv 2010.11929
    """

    weight_names = WEIGHT_NAMES

    heads: Heads
    mlp_ratio: Ratio = 4.0
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-6
    act: ActivationName = "gelu"
    qkv_bias: bool = True
    drop_path: Rate | None = None

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        check_heads(x.type.channels, self.heads)

        y = norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm1")
        x = residual(g, x, self_attention(g, y, self.heads, qkv_bias=self.qkv_bias), self.drop_path)

        y = norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm2")
        return flow.to(residual(g, x, mlp(g, y, self.mlp_ratio, self.act), self.drop_path))
