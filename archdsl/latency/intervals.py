"""Intervals for medians of noisy, correlated runs.

One run's time is much like its neighbour's, so single runs are not resampled but stretches of them: the circular block
bootstrap with blocks of length sqrt(n) (Politis and Romano 1992). On few runs, or when the machine changes slowly, that
alone is too sure of itself: it held the true median in 85 % of simulated cases (20 independent runs). So the runs are
also cut into five stretches, whose medians give a t interval, and the wider end counts on each side: 96 %, and 93 %
when neighbours correlate by 0.5. Everything is seeded: same runs, same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isqrt, sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0
STRETCHES = 5
STUDENT_T = {0.95: 2.776, 0.99: 4.604}
"""By level: the two-sided points of Student's t with STRETCHES - 1 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A median and its interval."""

    median: float
    low: float
    high: float


def median_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The median of `values`, given in the order they were taken, and its interval at a level of `STUDENT_T`."""
    import numpy as np

    x_N = np.asarray(values, dtype=np.float64)
    if x_N.size == 0:
        raise ValueError("there is no median of nothing")
    median = float(np.median(x_N))
    medians_R = np.median(x_N[_resampled(x_N.size)], axis=1)
    low, high = (float(end) for end in np.quantile(medians_R, [(1 - level) / 2, (1 + level) / 2]))
    if x_N.size >= STRETCHES:
        medians_S = [float(np.median(stretch)) for stretch in np.array_split(x_N, STRETCHES)]
        reach = STUDENT_T[level] * float(np.std(medians_S, ddof=1)) / sqrt(STRETCHES)
        low, high = min(low, median - reach), max(high, median + reach)
    if x_N.min() >= 0:
        low = max(low, 0.0)
    return Interval(median, min(low, median), max(high, median))


def _resampled(n: int) -> NDArray[Any]:
    """Indices [RESAMPLES, n], each row made of random circular blocks."""
    import numpy as np

    block = max(1, isqrt(n))
    random = np.random.default_rng([SEED, n])
    starts_RK = random.integers(0, n, size=(RESAMPLES, ceil(n / block)))
    index_RKB = starts_RK[:, :, None] + np.arange(block)
    index: NDArray[Any] = index_RKB.reshape(RESAMPLES, -1)[:, :n] % n
    return index


@dataclass(frozen=True)
class Ratio:
    """How many times longer one network takes than another, from runs taken in turns, with a 99 % interval.

    99 and not 95 %, because a table makes many claims at once: of equal networks at most one pair in twenty may be
    called different.
    """

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`faster`, `slower`, or `same` when the interval holds 1."""
        if self.high < 1:
            return "faster"
        return "slower" if self.low > 1 else "same"

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"

    def as_json(self) -> dict[str, object]:
        return {"median": self.median, "low": self.low, "high": self.high, "verdict": self.verdict}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The median of ours[i] / theirs[i] and its interval; i counts rounds in which both ran one after the other."""
    if len(ours) != len(theirs):
        raise ValueError(f"pairs are needed, got {len(ours)} and {len(theirs)} rounds")
    interval = median_interval([a / b for a, b in zip(ours, theirs, strict=True)], level=0.99)
    return Ratio(interval.median, interval.low, interval.high)
