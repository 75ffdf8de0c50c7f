"""Expected hypervolume improvement: how much volume a network is expected to add to the front.

Less is better in every column. A value that is known has sd 0: latency, parameters and MACs are known before a network
is trained, so that mostly one column is uncertain. The improvement's expectation is the integral, over all points z
that the front does not dominate, of the probability that the network dominates z; columns are independent normals.

Source: Emmerich, Giannakoglou and Naujoks 2006; the strips are those of Hupkens, Deutz, Yang and Emmerich 2015
"""

from __future__ import annotations

import numpy as np

from archdsl.statistics import normal_cdf
from archdsl.study.hypervolume import Array, non_dominated

POINTS = 2048
"""Points of the sum that stands for the integral of three and more objectives."""


def expected_improvement(mean: Array, sd: Array, front: Array, best: Array, reference: Array) -> Array:
    """For each candidate the hypervolume that it is expected to add.

    Args:
        mean, sd: [n, d], of the candidates
        front: [m, d], the points that are there
        best: [d], a bound that no value can lie below; -inf is none, for two objectives
        reference: [d], as of `hypervolume`
    Returns: [n]
    """
    front = front[(front < reference).all(axis=1)]
    front = front[non_dominated(front)] if len(front) else front
    if mean.shape[1] == 1:
        end = front.min() if len(front) else reference[0]
        return _below(np.array([end]), mean[:, 0], sd[:, 0], best[0])[:, 0]
    if mean.shape[1] == 2:
        return _by_strips(mean, sd, front, best, reference)
    return _by_points(mean, sd, front, best, reference)


def _by_strips(mean: Array, sd: Array, front: Array, best: Array, reference: Array) -> Array:
    """Exact for two objectives: strips between neighbours of the front, in each the product of two integrals."""
    front = front[np.argsort(front[:, 0])]
    edges = np.append(front[:, 0], reference[0])
    tops = np.append(reference[1], front[:, 1])
    across = np.diff(_below(edges, mean[:, 0], sd[:, 0], best[0]), axis=1, prepend=0.0)
    found: Array = (across * _below(tops, mean[:, 1], sd[:, 1], best[1])).sum(axis=1)
    return found


def _below(ends: Array, mean: Array, sd: Array, least: float) -> Array:
    """The integral [n, ends] of P(value < x) over x from `least` to each end."""
    whole = _ramp(ends[None], mean[:, None], sd[:, None])
    if np.isfinite(least):
        whole = whole - np.where(ends[None] > least, _ramp(np.array([[least]]), mean[:, None], sd[:, None]), whole)
    return np.maximum(whole, 0.0)


def _ramp(x: Array, mean: Array, sd: Array) -> Array:
    """E max(x - value, 0) = (x - mean) Phi(z) + sd phi(z)."""
    gap = x - mean
    z = gap / np.maximum(sd, 1e-12)
    found: Array = gap * normal_cdf(z) + sd * np.exp(-0.5 * np.minimum(z**2, 1400.0)) / np.sqrt(2 * np.pi)
    return found


def _by_points(mean: Array, sd: Array, front: Array, best: Array, reference: Array) -> Array:
    """A sum over evenly spread points (Halton 1960) between the best that is possible and the reference."""
    low = np.maximum(best, np.minimum((mean - 3 * sd).min(axis=0), front.min(axis=0) if len(front) else np.inf))
    low = np.minimum(low, reference)
    points = low + halton(POINTS, len(low)) * (reference - low)
    if len(front):
        points = points[~(front[None] <= points[:, None]).all(axis=2).any(axis=1)]
    chance = np.ones((len(mean), len(points)))
    for axis in range(mean.shape[1]):
        at, mu, s = points[None, :, axis], mean[:, axis, None], sd[:, axis, None]
        if (s <= 0).all():
            chance *= mu < at
        else:
            chance *= normal_cdf((at - mu) / np.maximum(s, 1e-12))
    found: Array = chance.sum(axis=1) * float(np.prod(reference - low)) / POINTS
    return found


def halton(num: int, dimensions: int) -> Array:
    """Evenly spread points in the unit cube [num, dimensions]; always the same. Source: Halton 1960"""
    from scipy.stats.qmc import Halton

    found: Array = Halton(dimensions, scramble=False).fast_forward(1).random(num)
    return found
