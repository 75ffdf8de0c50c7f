"""What parts hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Planes, Raster
from archdsl.ops import Reorder


@dataclass(frozen=True)
class Flow:
    """The main value, named side values that some blocks carry along, and the map after each finished stage."""

    x: Value
    side: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    stages: tuple[Value, ...] = ()

    def to(self, x: Value) -> Flow:
        """The same flow with another main value."""
        return replace(self, x=x)


def as_tokens(g: Scope, x: Value) -> Value:
    """`x` as tokens: planes become tokens in raster order, tokens and sequences stay as they are."""
    if isinstance(x.type.order, Planes):
        return g.add(Reorder(Raster(x.type.order.height, x.type.order.width)), x, name="to_tokens")
    return x


def as_planes(g: Scope, x: Value) -> Value:
    """`x` as planes. Errors: RuleBroken (from Reorder) when `x` is a sequence, which has no map any more."""
    if isinstance(x.type.order, Planes):
        return x
    order = x.type.order
    return g.add(Reorder(Planes(order.height, order.width) if order else Planes(0, 0)), x, name="to_planes")
