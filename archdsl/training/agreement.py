"""How far a cheaper evaluator ranks networks as real training does: Kendall's tau, with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000
LEAST_NETWORKS = 4
"""With fewer networks an interval would say nothing."""


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau-b between an evaluator and `train` on the same networks, and where it was measured.

    tau: 1 the same order, 0 no relation, -1 reversed; low, high: 95 % interval; num_networks: that both judged
    reference: the training it was measured against, e.g. `train: imagefolder:/data, recipe swin, 300 epochs`
    """

    tau: float
    low: float
    high: float
    num_networks: int
    reference: str

    def __str__(self) -> str:
        interval = f"{self.low:.2f} to {self.high:.2f}"
        return f"tau {self.tau:.2f} ({interval}, {self.num_networks} networks) with {self.reference}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_agreement(
    values: Sequence[float], trained: Sequence[float], reference: str, *, seed: int = 0
) -> RankAgreement:
    """Compare an evaluator's values with the accuracies after real training, network by network, in the same order.

    The interval is the middle 95 % of tau over networks drawn anew with replacement (percentile bootstrap).
    Errors: ValueError for lists of different lengths, numbers that are none, fewer than four networks, or only ties
    Source: Kendall 1945, The treatment of ties in ranking problems
    """
    x, y = np.asarray(values, np.float64), np.asarray(trained, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < LEAST_NETWORKS:
        raise ValueError(
            f"{LEAST_NETWORKS} or more networks judged by both are needed, but got {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("all values must be finite numbers")
    tau = kendall_tau(x, y)
    if tau is None:
        raise ValueError("one of the two gives all networks the same value, so there is no order to compare")
    draw = np.random.default_rng(seed)
    found = [kendall_tau(x[places], y[places]) for places in draw.integers(0, len(x), (RESAMPLES, len(x)))]
    low, high = np.quantile([each for each in found if each is not None], [0.025, 0.975])
    return RankAgreement(tau, float(low), float(high), len(x), reference)


def kendall_tau(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """tau-b of two lists of numbers; None when one of them has no order at all."""
    one, other = np.sign(x[:, None] - x[None, :]), np.sign(y[:, None] - y[None, :])
    untied = float((one != 0).sum()) * float((other != 0).sum())
    return float((one * other).sum()) / untied**0.5 if untied else None
