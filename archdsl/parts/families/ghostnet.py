"""GhostNet's bottleneck: half of the channels by a convolution, the other half by a cheap one of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.joining import Concat, MulVector
from archdsl.ops.linear import Linear
from archdsl.ops.norm import BatchNorm
from archdsl.ops.pointwise import Activation, Add
from archdsl.ops.tokens import MeanPool
from archdsl.parts.families.ghostnet_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Dim, Eps, Kernel, Stride
from archdsl.parts.flow import Flow, as_planes
from archdsl.parts.layers.convolutions import convolution, need_odd
from archdsl.parts.part import Block, register


@register("ghost")
class GhostBottleneck(Block):
    """Widen by a ghost module, halve the map or gate the channels, narrow by a ghost module, add a shortcut.

    dim: the width after the block; left out, that before
    hidden: the width inside
    kernel: of the depthwise convolutions that halve the map, here and in the shortcut
    stride: one number is the first block's, the others have 1
    se: hidden width of the gate (squeeze and excitation) as a part of `hidden`; 0 for no gate

    Source: GhostNet, arXiv 1911.11907
    """

    weight_names = WEIGHT_NAMES

    dim: Dim | None = None
    hidden: Dim
    kernel: Kernel = 3
    stride: Stride = 1
    se: Annotated[float, Field(ge=0, le=1)] = 0.0
    act: ActivationName = "relu"
    norm_eps: Eps = 1e-5

    @classmethod
    def spread(cls, field: str, value: Any, depth: int) -> Sequence[Any]:
        return [value] + [1] * (depth - 1) if field == "stride" else super().spread(field, value, depth)

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_planes(g, flow.x)
        before = x.type.channels
        dim = self.dim or before
        y = self._ghost(g, x, self.hidden, "hidden", self.act)
        if self.stride > 1:
            y = self._normed(g, y, self.hidden, "conv_dw", "norm_dw", kernel=self.kernel, stride=self.stride)
        if self.se:
            y = self._gated(g, y)
        y = self._ghost(g, y, dim, "dim", None)
        if self.stride > 1 or dim != before:
            x = self._normed(g, x, before, "shortcut.dw", "shortcut.norm1", kernel=self.kernel, stride=self.stride)
            x = self._normed(g, x, dim, "shortcut.conv", "shortcut.norm2")
        return flow.to(g.add(Add(), x, y))

    def _ghost(self, g: Scope, x: Value, width: int, field: str, act: ActivationName | None) -> Value:
        """A ghost module: a 1x1 convolution makes half of the channels, a depthwise 3x3 of those the other half."""
        if width % 2:
            raise RuleBroken(
                f"a ghost module makes two halves, but got {width} channels",
                field=field,
                hint=f"use {width + 1}",
                rule="divisible",
            )
        name = "ghost1" if field == "hidden" else "ghost2"
        x = self._normed(g, x, width // 2, f"{name}.primary", f"{name}.norm1")
        x = g.add(Activation(act), x, name=f"{name}.act1") if act else x
        y = self._normed(g, x, width // 2, f"{name}.cheap", f"{name}.norm2", kernel=3)
        y = g.add(Activation(act), y, name=f"{name}.act2") if act else y
        return g.add(Concat(), x, y, name=f"{name}.concat")

    def _normed(
        self, g: Scope, x: Value, dim: int, name: str, norm: str, *, kernel: int | None = None, stride: int = 1
    ) -> Value:
        """A convolution and its batch norm: depthwise with a kernel, 1x1 without."""
        if kernel is not None:
            need_odd(kernel)
        x = convolution(g, x, dim, kernel or 1, stride=stride, groups=dim if kernel else 1, name=name)
        return g.add(BatchNorm(dim, self.norm_eps), x, name=norm)

    def _gated(self, g: Scope, x: Value) -> Value:
        """Each channel times a number between 0 and 1, made from the means of all channels."""
        inside = _multiple_of_4(self.se * self.hidden)
        v = g.add(MeanPool(), x, name="se.pool")
        v = g.add(Linear(self.hidden, inside), v, name="se.reduce")
        v = g.add(Activation("relu"), v, name="se.act")
        v = g.add(Linear(inside, self.hidden), v, name="se.expand")
        return g.add(MulVector(), x, g.add(Activation("hardsigmoid"), v, name="se.gate"), name="se.mul")


def _multiple_of_4(width: float) -> int:
    """The nearest multiple of 4, at least 4 and at least nine tenths of `width`. Source: MobileNetV3's rule."""
    near = max(4, int(width + 2) // 4 * 4)
    return near + 4 if near < 0.9 * width else near


@register("conv")
class ConvBlock(Block):
    """A convolution with batch norm and activation.

    dim: the width after it; left out, that before
    """

    dim: Dim | None = None
    kernel: Kernel = 1
    stride: Stride = 1
    act: ActivationName = "relu"
    norm_eps: Eps = 1e-5

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_planes(g, flow.x)
        dim = self.dim or x.type.channels
        x = g.add(
            BatchNorm(dim, self.norm_eps),
            convolution(g, x, dim, self.kernel, stride=self.stride, name="conv"),
            name="norm",
        )
        return flow.to(g.add(Activation(self.act), x, name="act"))
