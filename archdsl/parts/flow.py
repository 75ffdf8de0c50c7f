"""The values that parts pass to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Planes, Raster
from archdsl.ops.tokens import Reorder


@dataclass(frozen=True)
class Flow:
    """The values between two parts.

    x: the main value
    side: named values that some blocks pass on beside it
    stages: the map after each finished stage
    tokens: names of the extra tokens that `x` begins with (`cls`, `dist`), before those of the map
    places: the map whose places the other tokens are, row by row, where `x` begins with extra ones
    outputs: results that only training reads, by name
    size: height and width of the image
    features: the maps that the neck and the heads see, finest first, by the paths of the parts that made them
    maps: those that the neck left of them, by the same paths
    results: what the network gives by name where that is not its main value alone
    """

    x: Value
    side: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    stages: tuple[Value, ...] = ()
    tokens: tuple[str, ...] = ()
    places: Raster | None = None
    outputs: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    size: tuple[int, int] = (0, 0)
    features: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    maps: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    results: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))

    def to(self, x: Value) -> Flow:
        """The same flow with another main value."""
        return replace(self, x=x)


def as_tokens(g: Scope, x: Value) -> Value:
    """`x` as tokens [N, C]: planes become tokens in raster order, tokens and sequences stay as they are."""
    order = x.type.order
    if not isinstance(order, Planes | Raster):
        return x
    to = Reorder(Raster(order.height, order.width))
    return g.add_unless(isinstance(order, Raster), to, x, name="to_tokens")


def as_planes(g: Scope, x: Value) -> Value:
    """`x` as planes [C, H, W].

    Raises: RuleBroken (by Reorder) when `x` is a sequence, which has no map
    """
    order = x.type.order
    to = Reorder(Planes(order.height, order.width) if order else Planes(0, 0))
    return g.add_unless(isinstance(order, Planes), to, x, name="to_planes")
