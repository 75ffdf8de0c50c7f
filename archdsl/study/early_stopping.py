"""Early stopping with several objectives (multi-objective ASHA): networks that are behind others are stopped.

Asynchronous successive halving for more than one objective: at each rung (epochs 1, 3, 9, …) a network continues only
if no other dominates it, or it is among the best `1 / eta` of all that have reached this rung. They are ranked by the
fronts of non-dominated sorting, within a front by the distance from those ranked before (an epsilon net), so that both
ends of the front and its middle continue, not three neighbours. Latency, parameters and MACs are known at every rung,
so a network that is slow and not accurate is stopped at the first.

The only state is what each trial stores at its rungs (`rung@3`), so a study continues where it was, and the decisions
of one worker depend on its finished trials alone. A network that was stopped is never continued.

Source: Li et al. 2020, https://arxiv.org/abs/1810.05934 (ASHA; here the variant that stops, not the one that promotes);
Schmucker et al. 2021, https://arxiv.org/abs/2106.12639 (several objectives, ranking by non-dominated sorting and an
epsilon net)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from archdsl.evaluators import Stepwise
from archdsl.language.architecture.model import Spec
from archdsl.study.hypervolume import costs, non_dominated, non_domination_ranks
from archdsl.study.objectives import Objective
from archdsl.study.record import Record
from archdsl.training import Accuracy


class Stopped(Exception):
    """A network is not trained further, since it is behind others."""


@dataclass(frozen=True)
class SuccessiveHalving:
    """The rungs of a training, and which share of the networks continues at each.

    epochs: of the whole training; first: the first rung, in epochs; eta: the ratio between neighbouring rungs; the best
        `1 / eta` of a rung continue. The last rung is the end of the training, where no network is stopped.
    """

    epochs: int
    first: int = 1
    eta: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.epochs or self.eta < 2:
            raise ValueError(f"rungs from epoch {self.first} by {self.eta} in {self.epochs} epochs")

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which networks are compared, without the last."""
        found, at = [], self.first
        while at < self.epochs:
            found.append(at)
            at *= self.eta
        return tuple(found)

    def continues(
        self, mine: Sequence[float], others: Iterable[Sequence[float]], objectives: Sequence[Objective]
    ) -> bool:
        """Whether a network continues at a rung, by its values and those of all others that have reached it.

        The first `eta - 1` at a rung continue, since they have too few to be compared with. So does a non-dominated
        network, because a front may have more members than the best `1 / eta`.
        """
        rows = [costs(values, objectives) for values in (mine, *others)]
        if len(rows) < self.eta or non_dominated(rows)[0]:
            return True
        return ranked(rows).index(0) < ceil(len(rows) / self.eta)


def ranked(rows: ArrayLike) -> list[int]:
    """Indices of points [n, d], less is better, the best first: front by front, each as an epsilon net.

    The net begins with the best of the first column. Next is always the point that is farthest from all before it,
    those of earlier fronts included. Distances are relative to the range of each column among all points.
    """
    points = np.asarray(rows, dtype=float)
    width = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(width > 0, width, 1.0)
    level = non_domination_ranks(points)
    gaps = np.full(len(points), np.inf)
    order: list[int] = []
    for front in range(int(level.max()) + 1):
        left = np.flatnonzero(level == front)
        while len(left):
            place = int(gaps[left].argmax()) if order else int(points[left, 0].argmin())
            order.append(int(left[place]))
            gaps = np.minimum(gaps, ((scaled - scaled[order[-1]]) ** 2).sum(axis=1))
            left = np.delete(left, place)
    return order


def train(
    early_stopping: SuccessiveHalving,
    evaluator: Stepwise[Spec],
    spec: Spec,
    *,
    seed: int,
    objectives: Sequence[Objective],
    values_with: Callable[[float], Sequence[float]],
    others: Callable[[], Iterable[Record]],
    store: Callable[[str, object], None],
) -> Accuracy:
    """Train from rung to rung.

    Args:
        values_with: accuracy -> the objectives' values
        others: records of the study's other networks
        store: called with `accuracy` and `rung@…` (the values there) at every rung
    Returns: the accuracy after the last epoch
    Raises: Stopped; what the evaluator raises
    """
    for epoch in early_stopping.rungs:
        accuracy = evaluator.advance(spec, seed=seed, to_epoch=epoch)
        mine = list(values_with(accuracy.mean))
        store("accuracy", accuracy.as_json())
        store(f"rung@{epoch}", mine)
        there = [record.rungs[epoch] for record in others() if epoch in record.rungs]
        if not early_stopping.continues(mine, there, objectives):
            evaluator.discard(spec, seed=seed)
            place = f"not among the best 1/{early_stopping.eta} of {len(there) + 1}"
            raise Stopped(f"behind after {epoch} of {early_stopping.epochs} epochs: {place}")
    return evaluator.advance(spec, seed=seed, to_epoch=early_stopping.epochs)
