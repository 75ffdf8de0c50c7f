"""Ops on numbers as such: numbers known before any image comes, and the format in which numbers are held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archdsl.ir.op import ZEROS, Op, ParamSpec
from archdsl.ir.types import DType, TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Constant(Op):
    """Numbers that are the same for every image: what deploying makes of a position bias and a mask.

    Shapes: nothing -> `shape`, without a batch axis
    """

    identity = "Constant(shape)"
    serves_attention = True

    shape: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(self.shape, batched=False)

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"": ParamSpec(self.shape, ZEROS, learnable=False)}

    def value(self, inputs: Sequence[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return tensors[""]


@dataclass(frozen=True)
class Cast(Op):
    """The same numbers in another format.

    Shapes: any -> the same
    """

    identity = "Cast(to)"
    kind = "layout"
    order_rule = "elementwise"

    to: DType

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0].with_dtype(self.to)
