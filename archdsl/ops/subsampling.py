"""Attention from a smaller map to a larger one: every second token of a map, and a bias by the distance of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archdsl.errors import RuleBroken
from archdsl.ir.op import ZEROS, Op, ParamSpec
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Subsample(Op):
    """The tokens in every `stride`-th row and column of a map, from the first on.

    Shapes: [H * W, C] -> [⌈H / stride⌉ * ⌈W / stride⌉, C]
    Raises: RuleBroken when the tokens are not a map in raster order
    Source: LeViT, arXiv 2104.01136, section 4.2
    """

    identity = "Subsample(stride)"
    onnx_tool_free = True
    kind = "reorder"

    stride: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if not isinstance(x.order, Raster):
            raise RuleBroken(f"Subsample needs a map in raster order, but got {x}")
        return x.in_order(Raster(-(-x.order.height // self.stride), -(-x.order.width // self.stride)))

    def places(self, order: Raster) -> list[int]:
        """The tokens that stay of a map in `order`, row by row."""
        rows, columns = range(0, order.height, self.stride), range(0, order.width, self.stride)
        return [y * order.width + x for y in rows for x in columns]


@dataclass(frozen=True)
class OffsetBias(Op):
    """A learnt bias for each head and each distance (|dy|, |dx|) of a query from a key.

    Keys are the places of a map, queries those in every `stride`-th row and column of it. The table is
    [heads, h * w]; the column of a pair is |dy| * w + |dx|. It starts at 0.

    Shapes: nothing -> [1, heads, ⌈h / stride⌉ * ⌈w / stride⌉, h * w]
    Source: LeViT, arXiv 2104.01136, section 4.2
    """

    identity = "OffsetBias(map, heads, stride)"
    kind = "attention"

    map: tuple[int, int]
    heads: int
    stride: int = 1

    def infer(self, *inputs: TensorType) -> TensorType:
        h, w = self.map
        return TensorType((1, self.heads, -(-h // self.stride) * -(-w // self.stride), h * w), batched=False)

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"": ParamSpec((self.heads, self.map[0] * self.map[1]), ZEROS)}

    def columns(self) -> NDArray[Any]:
        """The column of the table for each pair, [queries, keys]."""
        import numpy as np

        y, x = (each.flatten() for each in np.indices(self.map))
        queries = (y % self.stride == 0) & (x % self.stride == 0)
        dy, dx = abs(y[queries][:, None] - y), abs(x[queries][:, None] - x)
        found: NDArray[Any] = dy * self.map[1] + dx
        return found

    def value(self, inputs: Sequence[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        by_head: NDArray[Any] = tensors[""][:, self.columns()]
        return by_head[None]
