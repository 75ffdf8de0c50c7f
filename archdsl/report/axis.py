"""An axis of a picture: from values to places, with ticks at round numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10


@dataclass(frozen=True)
class Axis:
    """Values low … high on pixels (or columns) start … end, with ticks at round numbers."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def label(self, tick: float) -> str:
        if max(abs(self.low), abs(self.high)) >= 10_000:
            return _short(tick)
        step = self.ticks[1] - self.ticks[0]
        decimals = max(0, -floor(log10(step)))
        exact = abs(round(step, decimals) - step) < 1e-6 * step  # a step of 0.25 needs one more than its first digit
        return f"{tick:.{decimals if exact else decimals + 1}f}"


def axis(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    num_ticks: int = 6,
    least: float = -inf,
    most: float = inf,
) -> Axis:
    """An axis that holds all values with some room, from one round number to another, within least … most."""
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = (high - low) or abs(high) * 0.1 or 1.0
    low, high = max(least, low - 0.04 * span), min(most, high + 0.04 * span)
    rough = (high - low) / num_ticks
    scale = 10.0 ** floor(log10(rough))
    step = next(scale * nice for nice in (1, 2, 2.5, 5, 10) if scale * nice >= rough)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:g}"
