"""From a sequence of tokens back to a map."""

from __future__ import annotations

from dataclasses import dataclass

from archdsl.errors import RuleBroken
from archdsl.ir.op import Op
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class TakeMap(Op):
    """The tokens of a sequence from `first` on, which are the places of a map row by row; those before are none.

    Shapes: [first + height * width, C] -> [height * width, C] in raster order
    Raises: RuleBroken where the sequence has another number of tokens
    Source: maps of a ViT, whose first tokens are the class token and its like: arXiv 2010.11929
    """

    identity = "TakeMap(first, height, width)"

    first: int
    height: int
    width: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        places = self.height * self.width
        if x.order is not None or len(x.shape) != 2 or x.shape[0] != self.first + places:
            raise RuleBroken(f"a map of {self.height}x{self.width} behind {self.first} tokens is not in {x}")
        return TensorType((places, x.channels), x.dtype, Raster(self.height, self.width), x.batched)
