"""Intervals for medians of noisy, correlated runs.

One run's time is much like its neighbour's, so single runs are not resampled but stretches of them: the circular block
bootstrap with blocks of length sqrt(n) (Politis and Romano 1992). On few runs, or when the machine changes slowly, that
alone is too sure of itself: it held the true median in 85 % of simulated cases (20 independent runs). And where a
network lies in memory shifts all runs until it is loaded again, by 1 to 4 % for a Swin-T here, which no bootstrap over
the runs can see. So the medians of the sessions, between which networks are loaded anew, give a t interval too (without
sessions: those of five stretches), and the wider end counts on each side: 96 % of simulated intervals held the true
median, and 93 % when neighbours correlate by 0.5. Everything is seeded: same runs, same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isqrt, sqrt
from typing import TYPE_CHECKING, Any

from archdsl.statistics import student_t

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0
STRETCHES = 5


@dataclass(frozen=True)
class Interval:
    """A median and its interval."""

    median: float
    low: float
    high: float


def median_interval(values: Sequence[float], level: float = 0.95, *, sessions: Sequence[int] | None = None) -> Interval:
    """The median of a sample and its confidence interval.

    Args:
        values: [N] in the order in which they were taken, one or more
        level: of confidence, between 0 and 1
        sessions: [N], the session in which each was taken; what one session shares counts as one observation
    Raises: ValueError without values
    Source: Politis and Romano 1992, A circular block-resampling procedure for stationary data
    """
    import numpy as np

    x_N = np.asarray(values, dtype=np.float64)
    if x_N.size == 0:
        raise ValueError("there is no median of nothing")
    median = float(np.median(x_N))
    medians_R = np.median(x_N[_resampled(x_N.size)], axis=1)
    low, high = (float(end) for end in np.quantile(medians_R, [(1 - level) / 2, (1 + level) / 2]))
    medians_S = part_medians(values, sessions)
    if len(medians_S) > 1:
        middle = float(np.mean(medians_S))
        reach = student_t(level, len(medians_S) - 1) * float(np.std(medians_S, ddof=1)) / sqrt(len(medians_S))
        low, high = min(low, middle - reach), max(high, middle + reach)
    if x_N.min() >= 0:
        low = max(low, 0.0)
    return Interval(median, min(low, median), max(high, median))


def part_medians(values: Sequence[float], sessions: Sequence[int] | None = None) -> list[float]:
    """The median of each session; where there are not two, of `STRETCHES` parts; of fewer values, nothing."""
    import numpy as np

    x_N = np.asarray(values, dtype=np.float64)
    if sessions is not None and len(set(sessions)) > 1:
        session_N = np.asarray(sessions)
        return [float(np.median(x_N[session_N == number])) for number in np.unique(session_N)]
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
    """How many times longer one network takes than another, from interleaved runs, with a 99 % interval.

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
        """The three numbers and the verdict."""
        return {"median": self.median, "low": self.low, "high": self.high, "verdict": self.verdict}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], sessions: Sequence[int] | None = None) -> Ratio:
    """The median of ours[i] / theirs[i] and its 99 % interval.

    Args:
        ours, theirs: [R] times of rounds, in each of which both ran one after the other
        sessions: [R], the session of each round. Both networks lie elsewhere in memory in each, which shifts the ratios
            of all its rounds together
    Raises: ValueError when the lengths differ
    """
    if len(ours) != len(theirs):
        raise ValueError(f"pairs are needed, got {len(ours)} and {len(theirs)} rounds")
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    interval = median_interval(pairs, level=0.99, sessions=sessions)
    return Ratio(interval.median, interval.low, interval.high)
