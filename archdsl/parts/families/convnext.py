"""The ConvNeXt block: a depthwise convolution for the places, an MLP for the channels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archdsl.ir.graph import Scope
from archdsl.ir.op import Init
from archdsl.ops.linear import Conv2d
from archdsl.ops.pointwise import LayerScale
from archdsl.parts.families.convnext_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Eps, Kernel, NormAxis, NormName, Rate, Ratio
from archdsl.parts.flow import Flow, as_planes, as_tokens
from archdsl.parts.layers.convolutions import need_odd
from archdsl.parts.layers.sublayers import mlp, norm, residual
from archdsl.parts.part import Block, register


@register("convnext")
class ConvNextBlock(Block):
    """x += gamma * mlp(norm(depthwise(x))).

    layer_scale: the start of gamma; null leaves gamma out

    Source: ConvNeXt, arXiv 2201.03545
    """

    weight_names = WEIGHT_NAMES

    kernel: Kernel = 7
    mlp_ratio: Ratio = 4.0
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-6
    act: ActivationName = "gelu"
    layer_scale: Annotated[float, Field(gt=0, le=1)] | None = 1e-6
    drop_path: Rate | None = None

    def lower(self, g: Scope, flow: Flow) -> Flow:
        need_odd(self.kernel)
        x = as_planes(g, flow.x)
        dim = x.type.channels
        depthwise = Conv2d(dim, dim, self.kernel, padding=self.kernel // 2, groups=dim, init=Init("normal", 0.02))

        y = as_tokens(g, g.add(depthwise, x, name="conv_dw"))
        y = norm(g, y, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm")
        y = mlp(g, y, self.mlp_ratio, self.act)
        if self.layer_scale is not None:
            y = g.add(LayerScale(dim, self.layer_scale), y, name="gamma")
        return flow.to(residual(g, x, as_planes(g, y), self.drop_path))
