"""From the sum of a network's segment times to what the whole network takes: a correction learnt from a few networks.

A network whose segments take P ms together is measured at y. The model is about the ratio r = y / P:

    r  =  k  +  b * P0 / P  +  sum over segments s of w_s d_s  +  e        w_s: the segment's share of P

    k   ~ N(1, sigma_k^2)   what all networks have in common (warm caches, a machine that was slower that minute)
    b   ~ N(0, sigma_b^2)   a part that does not grow with the network; P0 is the middle P
    d_s ~ N(0, tau^2)       a segment takes longer, or less, among others than by itself
    e   ~ N(0, sigma_e^2)   what a measurement adds

All is Gaussian, so the ratio of another network given the calibration's is Gaussian in closed form (Rasmussen and
Williams, Gaussian Processes for Machine Learning, 2006, equations 2.23 to 2.26, with a linear kernel). The four sigmas
are not known either, and few networks say little about them: the prediction is the mixture over a grid of their values,
each weighted by its marginal likelihood (equation 2.30) and a weak prior. So its interval is wide where there are few
data, and needs no correction for their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from archdsl.statistics import Conditioned, normal_cdf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Law(NamedTuple):
    """A log-normal prior of a sigma, as values of a grid: its middle, and its standard deviation in powers of e."""

    middle: float
    spread: float
    grid: tuple[float, ...]


PRIOR: Mapping[str, Law] = {
    "k": Law(0.06, 1.0, (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)),
    "b": Law(0.01, 1.0, (0.002, 0.01, 0.05)),
    "tau": Law(0.05, 1.0, (0.005, 0.02, 0.05, 0.1, 0.2, 0.4)),
    "e": Law(0.015, 0.7, (0.004, 0.008, 0.015, 0.03, 0.06, 0.12)),
}
"""Standard deviations, as shares of the sum of the segments' times. Wide: each grid spans a factor of 25 or more."""

NEGLIGIBLE = 1e-4
"""Points of the grid with a smaller share of the largest weight are left out."""


@dataclass(frozen=True)
class Sample:
    """A network as the model sees it.

    sum_ms: the time of a call and of all segments beyond it
    shares: by segment key, which part of that its occurrences take
    loose:  relative variance of what was not measured but priced by its bytes
    """

    sum_ms: float
    shares: Mapping[str, float] = field(default_factory=dict)
    loose: float = 0.0


class Quantiles(NamedTuple):
    """Of what a measurement would show, in ms."""

    low: float
    median: float
    high: float


class RatioModel:
    """Learns from networks that were measured as a whole. Fast to ask, and never changed after it was made.

    samples, times_ms: the calibration networks and their measured medians; without any, the prior alone speaks
    """

    def __init__(self, samples: Sequence[Sample], times_ms: Sequence[float]):
        import numpy as np

        if len(samples) != len(times_ms):
            raise ValueError(f"a time for each sample, got {len(samples)} and {len(times_ms)}")
        self.samples, self.times_ms = tuple(samples), tuple(times_ms)
        self._keys = _keys_of(samples)
        self._middle_ms = float(np.median([s.sum_ms for s in samples])) if samples else 0.0
        self._shares_NS = _shares(samples, self._keys)
        self._short_N = self._short(samples)
        self._loose_N = np.array([s.loose for s in samples])
        grid_HP = np.array(list(product(*(law.grid for law in PRIOR.values()))))
        log_prior_H = sum(
            -0.5 * (np.log(grid_HP[:, i] / law.middle) / law.spread) ** 2 for i, law in enumerate(PRIOR.values())
        )
        variance_HP = grid_HP**2
        covariance_HNN = self._covariance(variance_HP, samples, samples) + self._noise(variance_HP)
        off_N = np.array([t / s.sum_ms - 1 for t, s in zip(times_ms, samples, strict=True)])
        given_H = Conditioned.on(covariance_HNN, off_N)
        log_weight_H = log_prior_H + given_H.log_likelihood
        weight_H = np.exp(log_weight_H - log_weight_H.max())
        kept = weight_H > NEGLIGIBLE
        self._variance_HP, self._given_H = variance_HP[kept], given_H[kept]
        self._weight_H = weight_H[kept] / weight_H[kept].sum()

    def quantiles(self, sample: Sample, level: float = 0.9) -> Quantiles:
        """The median and the ends of the central interval that holds a measurement with probability `level`."""
        mean_H, sigma_H = self._mixture(sample)
        tail = (1 - level) / 2
        low, median, high = _mixture_quantiles(mean_H, sigma_H, self._weight_H, (tail, 0.5, 1 - tail))
        return Quantiles(*(max(0.0, ratio) * sample.sum_ms for ratio in (low, median, high)))

    def choose(self, candidates: Sequence[Sample], count: int, given: Sequence[int] = ()) -> list[int]:
        """Which `count` candidates to measure next, first the one that tells most about all of them.

        Each is the one whose measurement lowers the sum of the candidates' variances most (A-optimal design; closed
        form, and it does not depend on what the measurement shows). Fewer when there are no more candidates.

        given: candidates that will be measured anyway; they are not chosen
        """
        import numpy as np

        if not candidates:
            return []
        variance_P = (self._weight_H @ self._variance_HP)[None]
        left_CC = self._covariance(variance_P, candidates, candidates)[0]
        if self.samples:
            known_NN = self._covariance(variance_P, self.samples, self.samples) + self._noise(variance_P)
            known_CN = self._covariance(variance_P, candidates, self.samples)[0]
            left_CC = left_CC - known_CN @ np.linalg.inv(known_NN)[0] @ known_CN.T
        noise_C = variance_P[0, 3] + np.array([s.loose for s in candidates])
        measured: list[int] = []
        pending = list(given)
        for _ in range(min(len(given) + count, len(candidates))):
            gain_C = (left_CC**2).sum(axis=0) / (np.diag(left_CC) + noise_C)
            gain_C[measured] = -1.0
            best = pending.pop(0) if pending else int(np.argmax(gain_C))
            measured.append(best)
            column_C = left_CC[:, best].copy()
            left_CC = left_CC - np.outer(column_C, column_C) / (column_C[best] + noise_C[best])
        return measured[len(given) :]

    @cached_property
    def left_out(self) -> tuple[Quantiles, ...]:
        """For each calibration network what the others predict for it."""
        made = []
        for i, sample in enumerate(self.samples):
            others = [s for j, s in enumerate(self.samples) if j != i]
            times_ms = [t for j, t in enumerate(self.times_ms) if j != i]
            made.append(RatioModel(others, times_ms).quantiles(sample))
        return tuple(made)

    @property
    def left_out_error(self) -> float | None:
        """The mean relative error of those; None for fewer than two calibration networks."""
        if len(self.samples) < 2:
            return None
        errors = [abs(q.median / t - 1) for q, t in zip(self.left_out, self.times_ms, strict=True)]
        return sum(errors) / len(errors)

    def _mixture(self, sample: Sample) -> tuple[Array, Array]:
        """Mean and standard deviation of the ratio, for each point of the grid."""
        import numpy as np

        prior_H = self._own_variance(sample)
        noise_H = self._variance_HP[:, 3] + sample.loose
        mean_H = np.ones(len(prior_H))
        left_H = prior_H
        if self.samples:
            cross_HN1 = self._covariance(self._variance_HP, [sample], self.samples).swapaxes(1, 2)
            mean_H = mean_H + self._given_H.mean(cross_HN1)[:, 0]
            left_H = prior_H - self._given_H.explained(cross_HN1)[:, 0]
        return mean_H, np.sqrt(np.maximum(left_H, 0.0) + noise_H)

    def _own_variance(self, sample: Sample) -> Array:
        """The prior variance of a network's ratio, segments that no calibration network has included."""
        squares = sum(share**2 for share in sample.shares.values())
        short = self._short([sample])[0]
        variance_HP = self._variance_HP
        found: Array = variance_HP[:, 0] + variance_HP[:, 1] * short**2 + variance_HP[:, 2] * squares
        return found

    def _covariance(self, variance_HP: Array, ours: Sequence[Sample], theirs: Sequence[Sample]) -> Array:
        """[H, ours, theirs], without noise."""
        import numpy as np

        if theirs is self.samples:
            same_AB = _shares(ours, self._keys) @ self._shares_NS.T
        else:
            keys = _keys_of((*ours, *theirs))
            same_AB = _shares(ours, keys) @ _shares(theirs, keys).T
        short_AB = np.outer(self._short(ours), self._short(theirs))
        parts_3AB = np.stack([np.ones_like(short_AB), short_AB, same_AB])
        found: Array = np.einsum("hp,pab->hab", variance_HP[:, :3], parts_3AB)
        return found

    def _noise(self, variance_HP: Array) -> Array:
        """[H, N, N]: a measurement's, and that of prices."""
        import numpy as np

        n = len(self.samples)
        found: Array = (variance_HP[:, 3, None] + self._loose_N)[:, :, None] * np.eye(n)
        return found

    def _short(self, samples: Sequence[Sample]) -> Array:
        """P0 / P of each."""
        import numpy as np

        return np.array([(self._middle_ms or s.sum_ms) / s.sum_ms for s in samples])


def _shares(samples: Sequence[Sample], keys: Mapping[str, int]) -> Array:
    """[samples, keys]: the share of each segment; segments that are not among the keys are left out."""
    import numpy as np

    shares_NS = np.zeros((len(samples), len(keys)))
    for row, sample in zip(shares_NS, samples, strict=True):
        for key, share in sample.shares.items():
            if key in keys:
                row[keys[key]] = share
    return shares_NS


def _keys_of(samples: Iterable[Sample]) -> dict[str, int]:
    """The segments of the samples, numbered."""
    return {key: i for i, key in enumerate(dict.fromkeys(key for sample in samples for key in sample.shares))}


def _mixture_quantiles(mean_H: Array, sigma_H: Array, weight_H: Array, levels: Sequence[float]) -> list[float]:
    """Quantiles of a mixture of normal laws, by bisection."""
    import numpy as np

    low_Q = np.full(len(levels), float((mean_H - 10 * sigma_H).min()))
    high_Q = np.full(len(levels), float((mean_H + 10 * sigma_H).max()))
    wanted_Q = np.asarray(levels)
    for _ in range(40):
        middle_Q = (low_Q + high_Q) / 2
        below_Q = normal_cdf((middle_Q[:, None] - mean_H) / sigma_H) @ weight_H
        low_Q, high_Q = np.where(below_Q < wanted_Q, middle_Q, low_Q), np.where(below_Q < wanted_Q, high_Q, middle_Q)
    return [float(q) for q in (low_Q + high_Q) / 2]


@dataclass(frozen=True)
class BytePrice:
    """What moving tokens costs, from moves that were measured: ms = start + slope * bytes.

    spread: the standard deviation of the relative error of a price
    """

    start_ms: float
    slope_ms: float
    spread: float

    def ms(self, num_bytes: int) -> float:
        """What moving so many bytes takes, in milliseconds."""
        return self.start_ms + self.slope_ms * num_bytes


LEAST_MOVES = 3
"""With fewer measured moves nothing says how far a price is off."""
LEAST_SPREAD = 0.1


def byte_price(sizes: Sequence[int], times_ms: Sequence[float]) -> BytePrice | None:
    """The line with the smallest relative errors; None for fewer than `LEAST_MOVES` moves.

    It neither falls nor begins below zero: moves that take the same whatever their size have one price, and of one size
    only a price in proportion is known. An error is relative to the move's time, but at least to half the middle one: a
    short move may seem to take nothing, and must not decide alone what all cost.

    times_ms: without the time of the call
    """
    import numpy as np

    if len(sizes) < LEAST_MOVES:
        return None
    x_N, t_N = np.asarray(sizes, float), np.asarray(times_ms, float)
    middle = float(np.median(t_N)) or float(np.mean(t_N))
    scale_N = np.maximum(t_N, max(middle / 2, 1e-6))
    if len(set(sizes)) == 1:
        start, slope = 0.0, middle / sizes[0]
    else:
        rows = np.stack([1 / scale_N, x_N / scale_N], axis=1)
        start, slope = (float(v) for v in np.linalg.lstsq(rows, t_N / scale_N, rcond=None)[0])
        if slope < 0:
            start, slope = float(np.sum(t_N / scale_N**2) / np.sum(1 / scale_N**2)), 0.0
        elif start < 0:
            start, slope = 0.0, float(np.sum(t_N * x_N / scale_N**2) / np.sum((x_N / scale_N) ** 2))
    off = (start + slope * x_N - t_N) / scale_N
    freedom = max(1, len(t_N) - 2)
    return BytePrice(start, slope, max(LEAST_SPREAD, sqrt(float(np.sum(off**2)) / freedom)))
