"""Timing forms of the same thing against each other in one process, fairly on a machine that is busy with other work.

The forms take turns, so that a slow minute meets all of them; what counts is the median of the ratios of neighbours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Seconds of each round, and of the first form in the same round."""

    seconds: list[float]
    first: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        """Median of seconds / seconds of the first form."""
        return statistics.median(self._ratios())

    @property
    def spread(self) -> tuple[float, float]:
        """The ratios' lower and upper quartile (or their range, below four rounds)."""
        ratios = sorted(self._ratios())
        if len(ratios) < 4:
            return ratios[0], ratios[-1]
        low, _, high = statistics.quantiles(ratios, n=4)
        return low, high

    def _ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.seconds, self.first, strict=True)]


def compare(
    forms: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 0,
    seconds: float = 0.0,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Paired]:
    """Time each form once a round, for at least `rounds` and `seconds`. Ratios refer to the first form.

    clock: `time.process_time` leaves out what a busy machine takes away; for forms that use one thread
    """
    for form in forms.values():
        for _ in range(warm_up):
            form()
    taken: dict[str, list[float]] = {name: [] for name in forms}
    end, done = time.monotonic() + seconds, 0
    while done < rounds or time.monotonic() < end:
        for name, form in forms.items():
            start = clock()
            form()
            taken[name].append(clock() - start)
        done += 1
    first = next(iter(taken.values()))
    return {name: Paired(times, first) for name, times in taken.items()}
