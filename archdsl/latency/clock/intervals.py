"""Intervals for medians of noisy, correlated runs.

One run's time is much like its neighbour's, so single runs are not resampled but stretches of them: the circular block
bootstrap with blocks of length sqrt(n) (Politis and Romano 1992). On few runs, or when the machine changes slowly, that
alone is too sure of itself: it held the true median in 85 % of simulated cases (20 independent runs). And where a
network lies in memory shifts all runs until it is loaded again, by 1 to 4 % for a Swin-T here, which no bootstrap over
the runs can see. So the medians of the sittings, between which networks are loaded anew, give a t interval too (without
sittings: those of five stretches), and the wider end counts on each side: 96 % of simulated intervals held the true
median, and 93 % when neighbours correlate by 0.5. Everything is seeded: same runs, same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isqrt, sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0
STRETCHES = 5

_FREEDOM = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 60, inf)
# fmt: off
STUDENT_T = {
    0.95: (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.179, 2.131, 2.086, 2.042, 2.000,
           1.960),
    0.99: (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.055, 2.947, 2.845, 2.750, 2.660,
           2.576),
}
# fmt: on
"""By level: the two-sided points of Student's t for the degrees of freedom of `_FREEDOM`."""


def student_t(level: float, freedom: float) -> float:
    """The two-sided point of Student's t at a level of `STUDENT_T`, for one degree of freedom or more.

    Between those of the table it is linear in 1 / freedom, which is right to three digits.
    """
    import numpy as np

    inverse = [1 / known for known in reversed(_FREEDOM)]
    return float(np.interp(1 / freedom, inverse, STUDENT_T[level][::-1]))


@dataclass(frozen=True)
class Interval:
    """A median and its interval."""

    median: float
    low: float
    high: float


def median_interval(values: Sequence[float], level: float = 0.95, *, sittings: Sequence[int] | None = None) -> Interval:
    """The median of `values`, given in the order they were taken, and its interval at a level of `STUDENT_T`.

    sittings: the sitting in which each was taken; what one sitting shares counts as one observation
    """
    import numpy as np

    x_N = np.asarray(values, dtype=np.float64)
    if x_N.size == 0:
        raise ValueError("there is no median of nothing")
    median = float(np.median(x_N))
    medians_R = np.median(x_N[_resampled(x_N.size)], axis=1)
    low, high = (float(end) for end in np.quantile(medians_R, [(1 - level) / 2, (1 + level) / 2]))
    medians_S = part_medians(values, sittings)
    if len(medians_S) > 1:
        middle = float(np.mean(medians_S))
        reach = student_t(level, len(medians_S) - 1) * float(np.std(medians_S, ddof=1)) / sqrt(len(medians_S))
        low, high = min(low, middle - reach), max(high, middle + reach)
    if x_N.min() >= 0:
        low = max(low, 0.0)
    return Interval(median, min(low, median), max(high, median))


def part_medians(values: Sequence[float], sittings: Sequence[int] | None = None) -> list[float]:
    """The median of each sitting; where there are not two, of `STRETCHES` parts; of fewer values, nothing."""
    import numpy as np

    x_N = np.asarray(values, dtype=np.float64)
    if sittings is not None and len(set(sittings)) > 1:
        sitting_N = np.asarray(sittings)
        return [float(np.median(x_N[sitting_N == number])) for number in np.unique(sitting_N)]
    if x_N.size < STRETCHES:
        return []
    return [float(np.median(part)) for part in np.array_split(x_N, STRETCHES)]


def _resampled(n: int) -> NDArray[Any]:
    """Indices [RESAMPLES, n], each row made of random circular blocks."""
    import numpy as np

    block = max(1, isqrt(n))
    random = np.random.default_rng([SEED, n])
    starts_RK = random.integers(0, n, size=(RESAMPLES, ceil(n / block)))
    index_RKB = starts_RK[:, :, None] + np.arange(block)
    index: NDArray[Any] = index_RKB.reshape(RESAMPLES, -1)[:, :n] % n
    return index


PRIOR_FREEDOM = 4
"""How many degrees of freedom the assumption counts as that a `Spread` begins with."""


@dataclass(frozen=True)
class Spread:
    """How far medians of measurements differ.

    sd:      standard deviation, as a share of the median
    repeats: degrees of freedom that were learnt; `PRIOR_FREEDOM` more are assumed
    """

    sd: float
    repeats: int

    def reach(self, level: float = 0.95) -> float:
        """How far from the long-run median one measurement may be, as a share of it."""
        return student_t(level, PRIOR_FREEDOM + self.repeats) * self.sd


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


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], sittings: Sequence[int] | None = None) -> Ratio:
    """The median of ours[i] / theirs[i] and its interval; i counts rounds in which both ran one after the other.

    sittings: of each round. Both networks lie elsewhere in each, which moves the ratio of all its rounds together
    """
    if len(ours) != len(theirs):
        raise ValueError(f"pairs are needed, got {len(ours)} and {len(theirs)} rounds")
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    interval = median_interval(pairs, level=0.99, sittings=sittings)
    return Ratio(interval.median, interval.low, interval.high)
