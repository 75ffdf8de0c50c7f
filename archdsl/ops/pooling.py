"""Pooling over small neighbourhoods of planes."""

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
