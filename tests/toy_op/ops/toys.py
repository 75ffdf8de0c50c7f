"""A family of one op, as somebody would add it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archdsl.ir.op import ONES, Op, ParamSpec, need_channels, need_tokens
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class SquaredScale(Op):
    """x^2 * weight, a weight for each channel.

    Shapes: [..., C] -> the same
    """

    identity = "SquaredScale(dim)"
    kind = "activation"
    order_rule = "tokenwise"

    dim: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("SquaredScale", x)
        need_channels("SquaredScale", x, self.dim)
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"": ParamSpec((self.dim,), ONES)}
