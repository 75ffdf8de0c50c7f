"""Stems: from the image to the first tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope
from archdsl.ir.op import Init, need_planes
from archdsl.ir.order import Raster
from archdsl.ops.linear import Conv2d
from archdsl.ops.tokens import AddPosition, PrependToken
from archdsl.parts.fields import Dim, Eps, NormAxis, NormName
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import norm
from archdsl.parts.part import Stem, register


@register("patch")
class PatchStem(Stem):
    """Cut the image into patches and map each to a token: a convolution whose stride is its kernel.

    cls: put a class token before the others
    dist: put a distillation token before those of the map, behind the class token
    position: `learned` adds one learnt vector to each token
    init_std: standard deviation of the weights' start; null is torch's default for a convolution

    Source: ViT, arXiv 2010.11929; with a norm: Swin, arXiv 2103.14030
    """

    patch: Annotated[int, Field(ge=1, le=1024, description="side of a patch, in pixels; must divide the image")]
    dim: Dim
    norm: NormName = "none"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-5
    cls: bool = False
    dist: bool = False
    position: Literal["learned", "none"] = "none"
    init_std: Annotated[float, Field(gt=0, le=10)] | None = None

    def lower(self, g: Scope, flow: Flow) -> Flow:
        order = need_planes("patch", flow.x.type)
        if order.height % self.patch or order.width % self.patch:
            raise RuleBroken(
                f"the patch must divide the image, but got patch {self.patch} for {order.height}x{order.width}",
                field="patch",
                hint=f"use a size that is a multiple of {self.patch}",
                rule="divisible",
            )
        init = Init("normal", self.init_std) if self.init_std else None
        conv = Conv2d(flow.x.type.channels, self.dim, self.patch, stride=self.patch, init=init)

        x = as_tokens(g, g.add(conv, flow.x, name="proj"))
        places = Raster(order.height // self.patch, order.width // self.patch)
        x = norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm")
        if self.dist:
            x = g.add(PrependToken(self.dim, Init("normal", 0.02)), x, name="dist_token")
        if self.cls:
            x = g.add(PrependToken(self.dim), x, name="cls_token")
        tokens = tuple(name for name, there in (("cls", self.cls), ("dist", self.dist)) if there)
        if self.position == "learned":
            x = g.add(AddPosition(x.type.tokens, self.dim), x, name="pos_embed")
        return replace(flow, x=x, tokens=tokens, places=places)
