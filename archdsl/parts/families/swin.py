"""The Swin block: attention within windows, shifted in every other block, and Swin-Free's forms of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Raster, Windows
from archdsl.ops.attention import RelativePositionBias
from archdsl.ops.tokens import Reorder
from archdsl.parts.families.swin_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Eps, Heads, NormAxis, NormName, Rate, Ratio, Window
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import check_heads, mlp, norm, residual, self_attention
from archdsl.parts.layers.windows import cut, in_windows, masked, sides_of
from archdsl.parts.part import Block, register


class ShiftedBlock(Block):
    """The base of blocks whose `shift: true` is Swin's rule: every second block of a stage shifts."""

    @classmethod
    def spread(cls, field: str, value: Any, depth: int) -> Sequence[Any]:
        if field == "shift" and value is True:
            return [index % 2 == 1 for index in range(depth)]
        return super().spread(field, value, depth)


@register("swin")
class SwinBlock(ShiftedBlock):
    """x += attention(norm(x)) within windows; x += mlp(norm(x)).

    window: side of the windows, or height x width; one that covers the map becomes the map, and is not shifted
    shift: true for a stage shifts its odd blocks by half a window (Swin's rule); a list says it block by block
    norm_axis: what batch norm normalises: each channel, or each token position as in Swin-Free's released code
    position_bias: `relative` is Swin's learnt table, one for each block

    Source: Swin, arXiv 2103.14030; without shift, with batch norm and ReLU: Swin-Free, arXiv 2306.13776
    """

    weight_names = WEIGHT_NAMES

    heads: Heads
    window: Window = 7
    shift: bool = False
    mlp_ratio: Ratio = 4.0
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-5
    act: ActivationName = "gelu"
    qkv_bias: bool = True
    position_bias: Literal["relative", "none"] = "relative"
    drop_path: Rate | None = None

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        check_heads(x.type.channels, self.heads)
        home, windows = cut(g, x, self.window, shift=self.shift)

        y = norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm1")
        windows = in_windows(g, windows)
        y = g.add(Reorder(windows), y, name="attn.to_windows")
        y = self_attention(g, y, self.heads, qkv_bias=self.qkv_bias, bias=self._bias(g, windows))
        y = g.add(Reorder(home), y, name="attn.from_windows")
        x = residual(g, x, y, self.drop_path)

        y = norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm2")
        return flow.to(residual(g, x, mlp(g, y, self.mlp_ratio, self.act), self.drop_path))

    def _bias(self, g: Scope, windows: Raster | Windows) -> Value | None:
        """What is added to the logits: the relative position bias, and the mask where windows are shifted."""
        shifted = isinstance(windows, Windows) and windows.shifted
        if self.position_bias == "none":
            if shifted:
                raise RuleBroken("a shifted window needs a position bias", field="position_bias", rule="wrong-value")
            return None
        bias = RelativePositionBias(sides_of(windows), self.heads)
        return masked(g, g.add(bias, name="attn.relative_position_bias_table"), windows)
