"""A number by which a task measures a network."""

from __future__ import annotations

from dataclasses import dataclass

from archdsl.json_fields import JsonFields


@dataclass(frozen=True)
class Metric(JsonFields):
    """One number by which a task measures a network, with its 95 % interval.

    name:      as people call it: `top-1`
    value:     in [0, 1], higher is better
    low, high: ends of the interval: how far a value from so many images may lie from the one over all such images
    """

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2%} (95 % interval {self.low:.2%} to {self.high:.2%})"
