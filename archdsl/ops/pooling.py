"""Pooling over neighbourhoods of planes, and planes at another size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from archdsl.errors import RuleBroken
from archdsl.ir.op import Op, need_planes
from archdsl.ir.order import Planes
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class Pool2d(Op):
    """The largest number (`max`) or the mean (`avg`) of each neighbourhood; what lies outside the map does not count.

    Shapes: [B, C, H, W] -> [B, C, (H + 2 padding - kernel) // stride + 1, …], rounded up with `ceil`
    Cost:   no MACs
    Raises: RuleBroken when the kernel does not fit, or would lie in the padding alone
    Source: torch.nn.MaxPool2d; torch.nn.AvgPool2d with count_include_pad=False
    """

    identity = "Pool2d(pool, kernel, stride, padding, *, ceil)"

    pool: Literal["max", "avg"]
    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        order = need_planes("Pool2d", x)
        if 2 * self.padding > self.kernel:
            raise RuleBroken(f"the padding may be half the kernel at most, but got {self.padding} for {self.kernel}")
        height, width = (self._places(side) for side in (order.height, order.width))
        if height < 1 or width < 1:
            raise RuleBroken(f"a kernel of {self.kernel} does not fit into {x}", hint="use a larger input")
        return TensorType((x.channels, height, width), x.dtype, Planes(height, width), x.batched)

    def _places(self, side: int) -> int:
        """How many neighbourhoods fit on a side; with `ceil` the last may reach out of the map, but begins on it."""
        free = side + 2 * self.padding - self.kernel
        places = (-(-free // self.stride) if self.ceil else free // self.stride) + 1
        return places - 1 if self.ceil and (places - 1) * self.stride >= side + self.padding else places


@dataclass(frozen=True)
class AdaptivePool(Op):
    """The mean of each of height x width neighbourhoods that cover the map, those of one side as equal as can be.

    Neighbourhood i of n on a side of N places is the places ⌊i N / n⌋ to ⌈(i + 1) N / n⌉ - 1; some may share a place.

    Shapes: [B, C, H, W] -> [B, C, height, width]
    Cost:   no MACs
    Source: torch.nn.AdaptiveAvgPool2d; pyramid pooling, arXiv 1612.01105
    """

    identity = "AdaptivePool(height, width)"
    fp32_island = True

    height: int
    width: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_planes("AdaptivePool", x)
        return _of_size(x, self.height, self.width)

    def bounds(self, x: TensorType) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The first place of each neighbourhood and the one behind its last, down and across a map of type `x`."""
        sides = zip((self.height, self.width), x.shape[1:], strict=True)
        down, across = ([(i * side // n, -(-(i + 1) * side // n)) for i in range(n)] for n, side in sides)
        return down, across


@dataclass(frozen=True)
class Resize(Op):
    """Planes at another size, each channel by itself.

    mode: `bilinear` (weights by distance among the four nearest places) or `nearest` (place ⌊i H / height⌋)
    align_corners: whether the centres of the corners stay where they are, else the outer edges; of `bilinear` alone

    Shapes: [B, C, H, W] -> [B, C, height, width]
    Cost:   no MACs
    Raises: RuleBroken for `nearest` with align_corners
    Source: torch.nn.functional.interpolate
    """

    identity = "Resize(height, width, mode, align_corners)"

    height: int
    width: int
    mode: Literal["bilinear", "nearest"] = "bilinear"
    align_corners: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_planes("Resize", x)
        if self.mode == "nearest" and self.align_corners:
            raise RuleBroken("align_corners says how to interpolate, and `nearest` does not", rule="wrong-value")
        return _of_size(x, self.height, self.width)


def _of_size(x: TensorType, height: int, width: int) -> TensorType:
    return TensorType((x.channels, height, width), x.dtype, Planes(height, width), x.batched)
