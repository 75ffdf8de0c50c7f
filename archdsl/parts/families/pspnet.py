"""PSPNet's pyramid pooling: what lies around each place, at several scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from archdsl.ir.graph import Scope
from archdsl.ops.joining import Concat
from archdsl.ops.pointwise import Dropout
from archdsl.ops.pooling import AdaptivePool
from archdsl.parts.fields import Dim, Rate
from archdsl.parts.flow import Flow
from archdsl.parts.layers.convolutions import conv_norm_relu
from archdsl.parts.layers.pyramid import need_maps, resized
from archdsl.parts.part import Neck, register


@register("ppm")
class PyramidPooling(Neck):
    """The last map beside its means over 1x1, 2x2, 3x3 and 6x6 regions, then a 3x3 convolution.

    dim: the width of each of the pooled maps
    out: the width of the result; null: `dim`
    scales: into how many regions a side is cut, scale by scale
    align_corners: whether resizing the pooled maps keeps the centres of the corners where they are
    dropout: behind the 3x3 convolution

    The batch norm of what is pooled to one place needs batches of two or more to learn.

    Source: PSPNet, arXiv 1612.01105, section 3.2
    """

    dim: Dim = 512
    out: Dim | None = None
    scales: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=8)] = (
        1,
        2,
        3,
        6,
    )
    align_corners: bool = False
    dropout: Rate = 0.0

    def lower(self, g: Scope, flow: Flow) -> Flow:
        tap, x = need_maps("ppm", flow)[-1]
        seen = [x]
        for index, scale in enumerate(self.scales):
            here = g.at(f"pools.{index}")
            y = here.add(AdaptivePool(scale, scale), x, name="pool")
            y = conv_norm_relu(g, y, self.dim, 1, name=f"pools.{index}")
            seen.append(resized(here, y, x, align_corners=self.align_corners, name="resize"))
        y = conv_norm_relu(g, g.add(Concat(), *seen, name="concat"), self.out or self.dim, 3, name="bottleneck")
        y = g.add(Dropout(self.dropout), y, name="dropout") if self.dropout else y
        return replace(flow, x=y, maps={**flow.maps, tap: y})
