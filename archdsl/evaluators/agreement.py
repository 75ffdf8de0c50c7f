"""How far a cheaper evaluator ranks networks as real training does: Kendall's tau, with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from archdsl.json_fields import JsonFields

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000
LEAST_NETWORKS = 4
"""With fewer networks an interval would say nothing."""


@dataclass(frozen=True)
class RankAgreement(JsonFields):
    """Kendall's tau-b between an evaluator and `train` on the same networks, and where it was measured.

    tau:          1: the same order, 0: no relation, -1: reversed
    low, high:    95 % interval of tau
    num_networks: networks that both evaluated
    reference:    the training it was measured against, e.g. `train: imagefolder:/data, recipe swin, 300 epochs`
    """

    tau: float
    low: float
    high: float
    num_networks: int
    reference: str

    def __str__(self) -> str:
        interval = f"{self.low:.2f} to {self.high:.2f}"
        return f"tau {self.tau:.2f} ({interval}, {self.num_networks} networks) with {self.reference}"


def measure_agreement(
    values: Sequence[float], trained: Sequence[float], reference: str, *, seed: int = 0
) -> RankAgreement:
    """Rank correlation of an evaluator's values with the accuracies after real training.

    The interval is the middle 95 % of tau over networks resampled with replacement (percentile bootstrap).

    Args:   values, trained: one number a network, in the same order; reference: what `trained` is; seed: of resampling
    Raises: ValueError for lists of different lengths, numbers that are not finite, fewer than four networks, only ties
    Source: Kendall 1945, The treatment of ties in ranking problems, https://doi.org/10.1093/biomet/33.3.239

    Example:
        >>> from archdsl.evaluators import measure_agreement
        >>> measure_agreement([1, 2, 3, 4, 5], [0.1, 0.3, 0.2, 0.4, 0.5], "train: toys").tau
        0.8
    """
    x, y = np.asarray(values, np.float64), np.asarray(trained, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < LEAST_NETWORKS:
        raise ValueError(
            f"{LEAST_NETWORKS} or more networks evaluated by both are needed, but got {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("all values must be finite numbers")
    tau = _tau(x, y)
    if isnan(tau):
        raise ValueError("one of the two gives all networks the same value, so there is no order to compare")
    draw = np.random.default_rng(seed)
    draws = draw.integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.nanquantile([_tau(x[places], y[places]) for places in draws], [0.025, 0.975])
    return RankAgreement(tau, float(low), float(high), len(x), reference)


def _tau(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """tau-b, nan when one of the two has no order at all; rounded, because scipy's of equal orders is 1 - 1e-16."""
    from scipy.stats import kendalltau

    return round(float(kendalltau(x, y).statistic), 12)
