"""ResNet's stem and bottleneck, whose fields also say every step from ResNet-50 to ConvNeXt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.pointwise import Activation, DropPath
from archdsl.ops.pooling import Pool2d
from archdsl.parts.families.resnet_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Dim, Eps, Kernel, NormName, Rate, Ratio, Stride
from archdsl.parts.flow import Flow, as_planes
from archdsl.parts.layers.convolutions import convolution, need_odd, norm_of_map
from archdsl.parts.layers.fusion import fused
from archdsl.parts.layers.sublayers import residual
from archdsl.parts.part import Block, Stem, register


@register("conv")
class ConvStem(Stem):
    """Convolutions, each with norm and activation, then a pooling.

    dims: the width after each convolution
    stride: of each convolution
    pool: `max` halves the map by the largest of 3x3 neighbours

    Source: ResNet, arXiv 1512.03385; of three small convolutions: arXiv 1812.01187
    """

    dims: Annotated[tuple[Dim, ...], Field(min_length=1, max_length=16)]
    stride: Annotated[tuple[Stride, ...], Field(min_length=1, max_length=16)]
    kernel: Kernel = 7
    norm: NormName = "batch"
    norm_eps: Eps = 1e-5
    act: ActivationName = "relu"
    pool: Literal["max", "none"] = "none"

    def lower(self, g: Scope, flow: Flow) -> Flow:
        if len(self.stride) != len(self.dims):
            raise RuleBroken(
                f"there must be a stride for each convolution, but got {len(self.stride)} for {len(self.dims)}",
                field="stride",
                hint=f"write {len(self.dims)} numbers",
                rule="length",
            )
        x = as_planes(g, flow.x)
        for index, (dim, stride) in enumerate(zip(self.dims, self.stride, strict=True), 1):
            x = convolution(g, x, dim, self.kernel, stride=stride, name=f"conv{index}")
            x = norm_of_map(g, x, self.norm, eps=self.norm_eps, name=f"norm{index}")
            x = g.add(Activation(self.act), x, name=f"act{index}")
        return flow.to(g.add(Pool2d("max", 3, 2, 1), x, name="pool") if self.pool == "max" else x)


@register("bottleneck")
class Bottleneck(Block):
    """Two convolutions 1x1 and one over the places, and a shortcut, which is a convolution where the shape changes.

    dim: the width after the block; left out, twice that before where the map is halved, else the same
    stride: of the convolution over the places; one number is the first block's, the others have 1
    dilation: of the convolution over the places
    groups: of the convolution over the places; `depthwise`: as many as channels
    ratio: the width inside, as a multiple of `dim`
    spatial: whether the convolution over the places is the `middle` one or the `first`, before the widening
    norm_after: after which of the three convolutions there is a norm
    act_after: after which of them, or after the `sum`, there is an activation
    shortcut: where the shape changes a 1x1 convolution with the stride, or (`pool_conv`) means of 2x2 and one without
    fuse: the sum of branch and shortcut, or one that a small network weighs, once (`aff`) or twice (`iaff`); that
        network has batch norms of one vector an image, so training needs batches of two or more
    fuse_ratio: by how much the hidden widths of that network are narrower than the block
    bias: whether the three convolutions have biases; the shortcut's has none

    Source: ResNet, arXiv 1512.03385 (stride as in torchvision); ResNeXt, arXiv 1611.05431; ConvNeXt, arXiv 2201.03545;
        AFF, arXiv 2009.14082; pool_conv: arXiv 1812.01187; dilation: DeepLabV3, arXiv 1706.05587
    """

    weight_names = WEIGHT_NAMES

    dim: Dim | None = None
    stride: Stride = 1
    kernel: Kernel = 3
    dilation: Annotated[int, Field(ge=1, le=64, description="how many places apart the numbers of a kernel are")] = 1
    groups: Annotated[int, Field(ge=1, le=65536)] | Literal["depthwise"] = 1
    ratio: Ratio = 0.25
    spatial: Literal["middle", "first"] = "middle"
    norm: NormName = "batch"
    norm_eps: Eps = 1e-5
    norm_after: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)
    act: ActivationName = "relu"
    act_after: tuple[Literal[1, 2, 3, "sum"], ...] = (1, 2, "sum")
    bias: bool = False
    shortcut: Literal["conv", "pool_conv"] = "conv"
    fuse: Literal["add", "aff", "iaff"] = "add"
    fuse_ratio: Annotated[int, Field(ge=1, le=1024)] = 16
    drop_path: Rate | None = None

    @classmethod
    def spread(cls, field: str, value: Any, depth: int) -> Sequence[Any]:
        return [value] + [1] * (depth - 1) if field == "stride" else super().spread(field, value, depth)

    def lower(self, g: Scope, flow: Flow) -> Flow:
        need_odd(self.kernel)
        x = as_planes(g, flow.x)
        before = x.type.channels
        dim = self.dim or (before if self.stride == 1 else 2 * before)
        y = x
        for number, width in enumerate(self._widths(before, dim), 1):
            y = self._step(g, y, number, width)
        if self.stride != 1 or dim != before:
            pooled = self.shortcut == "pool_conv" and self.stride > 1
            x = g.add(Pool2d("avg", 2, self.stride, ceil=True), x, name="shortcut.pool") if pooled else x
            x = convolution(g, x, dim, 1, stride=1 if pooled else self.stride, name="shortcut.conv")
            x = norm_of_map(g, x, self.norm, eps=self.norm_eps, name="shortcut.norm")
        if self.fuse == "add":
            y = residual(g, x, y, self.drop_path)
        else:
            y = g.add_unless(not self.drop_path, DropPath(self.drop_path or 0.0), y)
            y = fused(g, y, x, ratio=self.fuse_ratio, again=self.fuse == "iaff")
        return flow.to(g.add(Activation(self.act), y, name="act") if "sum" in self.act_after else y)

    def _widths(self, before: int, dim: int) -> tuple[int, int, int]:
        """The channels after each of the three convolutions."""
        inside = int(dim * self.ratio)
        if inside < 1:
            raise RuleBroken(
                f"the width inside must be at least 1, but ratio {self.ratio:g} of width {dim} is {inside}",
                field="ratio",
                hint="raise ratio",
                rule="out-of-range",
            )
        return (before if self.spatial == "first" else inside), inside, dim

    def _step(self, g: Scope, x: Value, number: int, width: int) -> Value:
        """One convolution, with its norm and its activation where it has them."""
        if number == (1 if self.spatial == "first" else 2):
            groups = width if self.groups == "depthwise" else self.groups
            if width % groups:
                raise RuleBroken(
                    f"groups must divide the width inside, but got groups {groups} at width {width}",
                    field="groups",
                    hint=f"use `depthwise`, or a number that divides {width}",
                    rule="divisible",
                )
            more = {"stride": self.stride, "groups": groups, "dilation": self.dilation}
            x = convolution(g, x, width, self.kernel, **more, bias=self.bias, name=f"conv{number}")
        else:
            x = convolution(g, x, width, 1, bias=self.bias, name=f"conv{number}")
        if number in self.norm_after:
            x = norm_of_map(g, x, self.norm, eps=self.norm_eps, name=f"norm{number}")
        return g.add(Activation(self.act), x, name=f"act{number}") if number in self.act_after else x
