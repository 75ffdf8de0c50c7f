"""A Gaussian process over a network's options: the mean and uncertainty of what has not been trained.

k(x, x') = s^2 (c + l <x, x'> + (1 - l) exp(-|x - x'|^2 / 2 r^2)) + noise: a linear trend for each feature, and a smooth
part for what features do together. The few hyperparameters are those of the highest marginal likelihood on a grid, the
scale s^2 is found in closed form, with a weak prior so that three points do not look certain. No state: the same
points give the same posterior.

Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapters 2 and 5
"""

from __future__ import annotations

from itertools import product
from math import log
from typing import NamedTuple

import numpy as np

from archdsl.statistics import Conditioned
from archdsl.study.hypervolume import Array

MOST_POINTS = 160
"""Points that the process is conditioned on; its time grows with their cube."""
MOST_FITTED = 80
"""Points that the hyperparameters are fitted to."""
REACHES = (0.7, 1.4, 2.8)
LINEAR = (0.1, 0.5, 0.9)
NOISE = (1e-3, 1e-2, 5e-2, 0.2)
PRIOR_POINTS = 2.0


class Posterior(NamedTuple):
    """mean and sd of each point [n], in the unit of what was fitted; sd is without the noise of a measurement."""

    mean: Array
    sd: Array


class GaussianProcess:
    """Features [n, k] and values [n] -> the posterior at any features. Raises: ValueError without any point."""

    def __init__(self, features: Array, values: Array):
        if len(values) == 0:
            raise ValueError("a Gaussian process needs a point")
        self._x = features
        self._shift = float(values.mean())
        self._scale = float(values.std()) or 1.0
        y = (values - self._shift) / self._scale
        some = slice(None, None, -(-len(y) // MOST_FITTED))  # each second, third, … point
        tried = [
            (self._likelihood(features[some], y[some], reach, linear, noise), -i, reach, linear, noise)
            for i, (reach, linear, noise) in enumerate(product(REACHES, LINEAR, NOISE))
        ]
        _, _, self.reach, self.linear, noise = max(tried)
        self._given = Conditioned.on(self._kernel(features, features) + noise * np.eye(len(y)), y)
        self._variance = _variance(self._given)

    def _likelihood(self, x: Array, y: Array, reach: float, linear: float, noise: float) -> float:
        """The logarithm of the marginal likelihood with the best scale, without constants."""
        self.reach, self.linear = reach, linear
        given = Conditioned.on(self._kernel(x, x) + noise * np.eye(len(y)), y)
        of_shape = float(given.log_likelihood) + 0.5 * float(given.whitened @ given.whitened)
        return round(of_shape - 0.5 * (len(y) + PRIOR_POINTS) * log(_variance(given)), 9)

    def _kernel(self, a: Array, b: Array) -> Array:
        """[n, k], [m, k] -> [n, m]"""
        found: Array = 1.0 + self.linear * (a @ b.T) + (1 - self.linear) * np.exp(-_squares(a, b) / (2 * self.reach**2))
        return found

    def __call__(self, features: Array) -> Posterior:
        """The values at features [m, k], given those that were fitted."""
        cross = self._kernel(self._x, features)
        prior = 1.0 + self.linear * (features**2).sum(axis=1) + (1 - self.linear)
        variance = np.maximum(prior - self._given.explained(cross), 1e-9) * self._variance
        return Posterior(self._shift + self._scale * self._given.mean(cross), self._scale * np.sqrt(variance))


def _variance(given: Conditioned) -> float:
    """The scale s^2 of highest likelihood, as if `PRIOR_POINTS` further points had said 1."""
    return (float(given.whitened @ given.whitened) + PRIOR_POINTS) / (len(given.whitened) + PRIOR_POINTS)


def _squares(a: Array, b: Array) -> Array:
    found: Array = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(found, 0.0)
