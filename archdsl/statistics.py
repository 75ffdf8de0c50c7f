"""Points of distributions, and what observing some normal variables says about others.

scipy is loaded when a function needs it, not with this module: `archdsl check` and `show` do without.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def student_t(level: float, freedom: float) -> float:
    """The two-sided point of Student's t: |t| is below it with probability `level`.

    Example:
        >>> round(student_t(0.95, 4), 3)
        2.776
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a probability. share: of hits in n independent draws, in [0, 1]; n: at least 1

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    Example:
        >>> [round(end, 3) for end in wilson_interval(0.5, 100)]
        [0.404, 0.596]
    """
    z = 1.959963984540054
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def normal_cdf(z: Array) -> Array:
    """P(standard normal < z), elementwise."""
    from scipy.special import ndtr

    found: Array = ndtr(z)
    return found


@dataclass(frozen=True)
class Conditioned:
    """Normal variables of mean 0 given N of them, or of others correlated with them; batched over leading axes.

    whitening:      [..., N, N], the inverse of the Cholesky factor of the observations' covariance
    whitened:       [..., N], the observations in its coordinates, where they are independent with variance 1
    log_likelihood: [...], of the observations, without the constant
    Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, algorithm 2.1
    """

    whitening: Array
    whitened: Array
    log_likelihood: Array

    @classmethod
    def on(cls, covariance: Array, observed: Array) -> Conditioned:
        """Condition on values.

        covariance: [..., N, N], with the noise of the observations
        observed:   [N], or [..., N]
        Raises: numpy.linalg.LinAlgError when the covariance is not positive definite
        """
        import numpy as np

        factor = np.linalg.cholesky(covariance)
        whitening = np.linalg.solve(factor, np.broadcast_to(np.eye(covariance.shape[-1]), covariance.shape))
        whitened = (whitening @ observed[..., None])[..., 0]
        log_scale = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
        return cls(whitening, whitened, -0.5 * (whitened**2).sum(axis=-1) - log_scale)

    def __getitem__(self, chosen: Array) -> Conditioned:
        """Some entries of the first leading axis."""
        return Conditioned(self.whitening[chosen], self.whitened[chosen], self.log_likelihood[chosen])

    def mean(self, cross: Array) -> Array:
        """[..., M]: the expectation of M variables; cross: [..., N, M], their covariance with the observed ones."""
        found: Array = (self.whitened[..., None, :] @ (self.whitening @ cross))[..., 0, :]
        return found

    def explained(self, cross: Array) -> Array:
        """[..., M]: how much less the variance of each of M variables is than without the observations."""
        found: Array = ((self.whitening @ cross) ** 2).sum(axis=-2)
        return found
