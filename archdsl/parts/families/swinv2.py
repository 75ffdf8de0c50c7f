"""The SwinV2 block: cosine attention within windows, position biases from an MLP, norms behind the branches."""

from __future__ import annotations

from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Raster, Windows, window_sides
from archdsl.ops.attention import Attention
from archdsl.ops.cosine import ContinuousPositionBias, HeadNorm
from archdsl.ops.linear import Linear
from archdsl.ops.norm import Shift
from archdsl.ops.tokens import Reorder, Slice
from archdsl.parts.families.swin import ShiftedBlock
from archdsl.parts.families.swinv2_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Eps, Heads, NormAxis, NormName, Rate, Ratio, Window
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import check_heads, mlp, norm, residual
from archdsl.parts.layers.windows import cut, in_windows, masked, sides_of
from archdsl.parts.part import register


@register("swinv2")
class SwinV2Block(ShiftedBlock):
    """x += norm(attention(x)) within windows; x += norm(mlp(x)).

    window: side of the windows, or height x width; one that covers the map becomes the map, and is not shifted
    shift: true for a stage shifts its odd blocks by half a window (Swin's rule); a list says it block by block
    norm: layer norms start at 0, so that a block starts as the identity
    qkv_bias: of q and v; k has none
    pretrained_window: the window of the weights that training starts from, where it is another

    Source: SwinV2, arXiv 2111.09883
    """

    weight_names = WEIGHT_NAMES

    heads: Heads
    window: Window = 8
    shift: bool = False
    mlp_ratio: Ratio = 4.0
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-5
    act: ActivationName = "gelu"
    qkv_bias: bool = True
    pretrained_window: Window | None = None
    drop_path: Rate | None = None

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        check_heads(x.type.channels, self.heads)
        home, windows = cut(g, x, self.window, shift=self.shift)
        windows = in_windows(g, windows)

        y = g.add(Reorder(windows), x, name="attn.to_windows")
        y = self._attention(g, y, windows)
        y = g.add(Reorder(home), y, name="attn.from_windows")
        x = residual(g, x, self._norm(g, y, "norm1"), self.drop_path)

        y = mlp(g, x, self.mlp_ratio, self.act)
        return flow.to(residual(g, x, self._norm(g, y, "norm2"), self.drop_path))

    def _norm(self, g: Scope, x: Value, name: str) -> Value:
        return norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name=name, start=0.0)

    def _attention(self, g: Scope, x_NC: Value, windows: Raster | Windows) -> Value:
        """softmax(cos(q, k) * scale + bias) v within each window, the scale learnt for each head."""
        dim, sides = x_NC.type.channels, sides_of(windows)
        qkv = g.add(Linear(dim, 3 * dim, bias=False), x_NC, name="attn.qkv")
        q, k, v = (g.add(Slice(i * dim, (i + 1) * dim), qkv, name=f"attn.{name}") for i, name in enumerate("qkv"))
        if self.qkv_bias:
            q, v = (g.add(Shift(dim), x, name=f"attn.{name}_bias") for name, x in (("q", q), ("v", v)))
        q = g.add(HeadNorm(self.heads, scaled=True), q, name="attn.logit_scale")
        k = g.add(HeadNorm(self.heads), k, name="attn.k_norm")
        before = sides if self.pretrained_window is None else window_sides(self.pretrained_window)
        bias = g.add(ContinuousPositionBias(sides, self.heads, before), name="attn.cpb_mlp")
        mixed = g.add(Attention(self.heads, 1.0), q, k, v, masked(g, bias, windows), name="attn.attend")
        return g.add(Linear(dim, dim), mixed, name="attn.proj")
