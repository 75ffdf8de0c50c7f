"""Downsamplings: half the height and width, more channels."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope
from archdsl.ir.op import Init
from archdsl.ir.order import Groups2x2, Raster
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.tokens import MergeGroups, Reorder
from archdsl.parts.fields import Eps, NormAxis, NormName
from archdsl.parts.flow import Flow, as_planes, as_tokens
from archdsl.parts.layers.sublayers import norm
from archdsl.parts.part import Downsample, register


@register("patch_merging")
class PatchMerging(Downsample):
    """Concatenate each 2x2 neighbourhood (4C), norm, and map it to `dim` channels without a bias.

    norm: `none` leaves the norm out, as Swin-Free's released BR code does
    norm_first: false for SwinV2, which norms the result

    Source: Swin, arXiv 2103.14030; SwinV2, arXiv 2111.09883
    """

    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-5
    norm_first: bool = True

    def lower(self, g: Scope, flow: Flow, dim: int) -> Flow:
        x = as_tokens(g, flow.x)
        order = x.type.order
        if order is None:
            raise RuleBroken(f"patch merging needs a map, but got {x.type}", hint="use a stem without a class token")
        half = Raster(-(-order.height // 2), -(-order.width // 2))
        x = g.add(Reorder(Groups2x2(order.height, order.width, half)), x, name="gather")
        x = g.add(MergeGroups(), x, name="merge")
        normed = partial(norm, g, kind=self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm")
        if self.norm_first:
            x = normed(x)
        x = g.add(Linear(x.type.channels, dim, bias=False), x, name="reduction")
        return flow.to(x if self.norm_first else normed(x))


@register("conv")
class ConvDownsample(Downsample):
    """Norm, then a convolution with stride.

    Source: ConvNeXt, arXiv 2201.03545
    """

    kernel: Annotated[int, Field(ge=1, le=31)] = 2
    stride: Annotated[int, Field(ge=1, le=31)] = 2
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-6

    def lower(self, g: Scope, flow: Flow, dim: int) -> Flow:
        x = as_tokens(g, flow.x)
        x = norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm")
        padding = (self.kernel - 1) // 2
        conv = Conv2d(x.type.channels, dim, self.kernel, stride=self.stride, padding=padding, init=Init("normal", 0.02))
        return flow.to(g.add(conv, as_planes(g, x), name="conv"))
