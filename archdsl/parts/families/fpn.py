"""Feature pyramid networks: coarse maps are added to finer ones, from the top down."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.joining import Concat
from archdsl.ops.norm import BatchNorm
from archdsl.ops.pointwise import Activation, Add
from archdsl.parts.families.upernet_weights import WEIGHT_NAMES
from archdsl.parts.fields import ActivationName, Dim
from archdsl.parts.flow import Flow
from archdsl.parts.layers.convolutions import conv_norm_relu, convolution
from archdsl.parts.layers.pyramid import need_maps, resized
from archdsl.parts.part import Neck, register


@register("fpn")
class FeaturePyramid(Neck):
    """Each map by a 1x1 convolution to `dim`, plus the coarser result at its size; then a 3x3 convolution on each.

    resize: how the coarser result is brought to the size of the finer map
    norm, act: behind each convolution; without a norm convolutions have biases
    top: `keep` takes the coarsest map as it is, without convolutions of its own (it must be `dim` wide)

    Source: FPN, arXiv 1612.03144, section 3; with norms, and the top kept: UPerNet, arXiv 1807.10221
    """

    dim: Dim = 256
    resize: Literal["nearest", "bilinear"] = "nearest"
    norm: Literal["batch", "none"] = "none"
    act: ActivationName | Literal["none"] = "none"
    top: Literal["lateral", "keep"] = "lateral"

    def lower(self, g: Scope, flow: Flow) -> Flow:
        maps = need_maps("fpn", flow)
        done: dict[str, Value] = {}
        above: Value | None = None
        for index, (tap, x) in reversed(list(enumerate(maps))):
            kept = self.top == "keep" and above is None
            if kept and x.type.channels != self.dim:
                raise RuleBroken(
                    f"the coarsest map is kept as it is, so it must be {self.dim} wide, but got {x.type}",
                    field="dim",
                    hint=f"set dim to {x.type.channels}, or `top: lateral`",
                    rule="wrong-value",
                )
            lateral = x if kept else self._conv(g, x, 1, f"lateral.{index}")
            if above is not None:
                lateral = g.add(Add(), lateral, resized(g, above, x, self.resize, name=f"resize.{index}"), name="sum")
            above = lateral
            done[tap] = lateral if kept else self._conv(g, lateral, 3, f"smooth.{index}")
        pyramid = dict(reversed(done.items()))
        return replace(flow, x=next(iter(pyramid.values())), maps=pyramid)

    def _conv(self, g: Scope, x: Value, kernel: int, name: str) -> Value:
        x = convolution(g, x, self.dim, kernel, bias=self.norm == "none", name=f"{name}.conv")
        if self.norm == "batch":
            x = g.add(BatchNorm(self.dim), x, name=f"{name}.norm")
        return x if self.act == "none" else g.add(Activation(self.act), x, name=f"{name}.act")


@register("fuse")
class Fuse(Neck):
    """All maps at the size of the finest, side by side, then a 3x3 convolution: one map.

    Source: UPerNet, arXiv 1807.10221, section 3.2
    """

    weight_names = WEIGHT_NAMES

    dim: Dim = 512

    def lower(self, g: Scope, flow: Flow) -> Flow:
        maps = need_maps("fuse", flow)
        (tap, finest), others = maps[0], maps[1:]
        seen = [resized(g, x, finest, name=f"resize.{index}") for index, (_, x) in enumerate(others, start=1)]
        y = g.add(Concat(), finest, *seen, name="concat") if seen else finest
        y = conv_norm_relu(g, y, self.dim, 3, name="bottleneck")
        return replace(flow, x=y, maps={tap: y})
