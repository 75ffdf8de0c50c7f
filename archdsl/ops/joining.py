"""Ops that join two maps, or a map and a vector: products, differences, channels side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

from archdsl.errors import RuleBroken
from archdsl.ir.op import Op, need_planes
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class Mul(Op):
    """x * y, number by number.

    Shapes: two equal -> the same
    Raises: RuleBroken when shapes or orders differ
    """

    identity = "Mul()"
    joins = True
    order_rule = "elementwise"

    def infer(self, *inputs: TensorType) -> TensorType:
        return _of_one_type("x * y", *inputs)


@dataclass(frozen=True)
class Sub(Op):
    """x - y, number by number.

    Shapes: two equal -> the same
    Raises: RuleBroken when shapes or orders differ
    """

    identity = "Sub()"
    kind = "add"
    joins = True
    order_rule = "elementwise"

    def infer(self, *inputs: TensorType) -> TensorType:
        return _of_one_type("x - y", *inputs)


@dataclass(frozen=True)
class MulVector(Op):
    """x * v: each channel of planes times a number of the image's own, as in a squeeze-and-excitation.

    Shapes: [B, C, H, W], [B, C] -> [B, C, H, W]
    Raises: RuleBroken when the first is no planes, or the second no vector as wide
    Source: arXiv 1709.01507, equation 4
    """

    identity = "MulVector()"

    def infer(self, *inputs: TensorType) -> TensorType:
        return _with_vector("x * v", *inputs)


@dataclass(frozen=True)
class AddVector(Op):
    """x + v: each channel of planes plus a number of the image's own.

    Shapes: [B, C, H, W], [B, C] -> [B, C, H, W]
    Raises: RuleBroken when the first is no planes, or the second no vector as wide
    """

    identity = "AddVector()"
    kind = "add"

    def infer(self, *inputs: TensorType) -> TensorType:
        return _with_vector("x + v", *inputs)


@dataclass(frozen=True)
class Concat(Op):
    """The channels of one map, then those of another, and so on.

    Shapes: [..., C], [..., D], … -> [..., C + D + …]; [B, C, H, W], [B, D, H, W], … -> [B, C + D + …, H, W]
    Raises: RuleBroken when they differ in more than their channels
    """

    identity = "Concat()"
    joins = True
    order_rule = "channelwise"

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        for y in inputs[1:]:
            if x.with_channels(y.channels) != y:
                raise RuleBroken(f"channels go side by side on one map alone, but got x = {x}, y = {y}")
        return x.with_channels(sum(y.channels for y in inputs))


def _of_one_type(what: str, x: TensorType, y: TensorType) -> TensorType:
    if x != y:
        raise RuleBroken(f"`{what}` needs two values of one type, but got x = {x}, y = {y}")
    return x


def _with_vector(what: str, x: TensorType, v: TensorType) -> TensorType:
    need_planes(what, x)
    if v != replace(x, shape=(x.channels,), order=None):
        raise RuleBroken(f"`{what}` needs a vector as wide as the map, but got x = {x}, v = {v}")
    return x
