"""DeepLabV3's atrous spatial pyramid pooling: one map seen through convolutions of several dilations."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from archdsl.ir.graph import Scope
from archdsl.ops.joining import Concat
from archdsl.ops.pointwise import Dropout
from archdsl.ops.pooling import AdaptivePool
from archdsl.parts.families.deeplab_weights import WEIGHT_NAMES
from archdsl.parts.fields import Dim, Rate
from archdsl.parts.flow import Flow
from archdsl.parts.layers.convolutions import conv_norm_relu
from archdsl.parts.layers.pyramid import need_maps, resized
from archdsl.parts.part import Neck, register


@register("aspp")
class AtrousPyramid(Neck):
    """The last map through a 1x1, several dilated 3x3 convolutions and its mean, all joined by a 1x1 convolution.

    dim: the width of each branch, and of the result
    rates: the dilations of the 3x3 convolutions
    dropout: behind the last convolution

    The batch norm of what is pooled to one place needs batches of two or more to learn.

    Source: DeepLabV3, arXiv 1706.05587, section 3.3 (the rates for a map of stride 8)
    """

    weight_names = WEIGHT_NAMES

    dim: Dim = 256
    rates: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)] = (12, 24, 36)
    dropout: Rate = 0.0

    def lower(self, g: Scope, flow: Flow) -> Flow:
        tap, x = need_maps("aspp", flow)[-1]
        seen = [conv_norm_relu(g, x, self.dim, 1, name="point")]
        seen += [
            conv_norm_relu(g, x, self.dim, 3, dilation=rate, name=f"atrous.{index}")
            for index, rate in enumerate(self.rates)
        ]
        mean = conv_norm_relu(g, g.add(AdaptivePool(1, 1), x, name="image.pool"), self.dim, 1, name="image")
        seen.append(resized(g, mean, x, name="image.resize"))
        y = conv_norm_relu(g, g.add(Concat(), *seen, name="concat"), self.dim, 1, name="project")
        y = g.add(Dropout(self.dropout), y, name="dropout") if self.dropout else y
        return replace(flow, x=y, maps={tap: y})
