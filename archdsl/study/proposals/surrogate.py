"""A cheap guess at what has not been trained: a Gaussian process over a network's options, with its uncertainty.

k(x, x') = s^2 (c + l <x, x'> + (1 - l) exp(-|x - x'|^2 / 2 r^2)) + noise: a linear trend for each feature, and a smooth
part for what features do together. The few hyperparameters are those of the highest marginal likelihood on a grid, the
scale s^2 is found in closed form, with a weak prior so that three points do not look certain. No state: the same
points give the same guess.

Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapters 2 and 5
"""

from __future__ import annotations

from itertools import product
from math import log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MOST_POINTS = 160
"""Points that a guess goes by; its time grows with their cube."""
MOST_FITTED = 80
"""Points that the hyperparameters are chosen by."""
REACHES = (0.7, 1.4, 2.8)
LINEAR = (0.1, 0.5, 0.9)
NOISE = (1e-3, 1e-2, 5e-2, 0.2)
PRIOR_POINTS = 2.0


class Guess(NamedTuple):
    """mean and sd of each point [n], in the unit of what was fitted; sd is without the noise of a measurement."""

    mean: Array
    sd: Array


class Surrogate:
    """Features [n, k] and values [n] -> a guess at the value of any features. Errors: ValueError without any point."""

    def __init__(self, features: Array, values: Array):
        if len(values) == 0:
            raise ValueError("a surrogate needs a point")
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
        self._factor = np.linalg.cholesky(self._kernel(features, features) + noise * np.eye(len(y)))
        self._half = np.linalg.solve(self._factor, y)
        self._variance = (float(self._half @ self._half) + PRIOR_POINTS) / (len(y) + PRIOR_POINTS)

    def _likelihood(self, x: Array, y: Array, reach: float, linear: float, noise: float) -> float:
        """The logarithm of the marginal likelihood with the best scale, without constants."""
        self.reach, self.linear = reach, linear
        factor = np.linalg.cholesky(self._kernel(x, x) + noise * np.eye(len(y)))
        half = np.linalg.solve(factor, y)
        scale = (float(half @ half) + PRIOR_POINTS) / (len(y) + PRIOR_POINTS)
        return round(-0.5 * (len(y) + PRIOR_POINTS) * log(scale) - float(np.log(np.diag(factor)).sum()), 9)

    def _kernel(self, a: Array, b: Array) -> Array:
        """[n, k], [m, k] -> [n, m]"""
        found: Array = 1.0 + self.linear * (a @ b.T) + (1 - self.linear) * np.exp(-_squares(a, b) / (2 * self.reach**2))
        return found

    def __call__(self, features: Array) -> Guess:
        """What the values at features [m, k] probably are."""
        solved = np.linalg.solve(self._factor, self._kernel(self._x, features))
        prior = 1.0 + self.linear * (features**2).sum(axis=1) + (1 - self.linear)
        variance = np.maximum(prior - (solved**2).sum(axis=0), 1e-9) * self._variance
        return Guess(self._shift + self._scale * (solved.T @ self._half), self._scale * np.sqrt(variance))


def _squares(a: Array, b: Array) -> Array:
    found: Array = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(found, 0.0)
