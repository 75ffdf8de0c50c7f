"""Early stopping with several objectives: a network that is behind after an epoch or three is not trained to the end.

Successive halving as it comes in (ASHA), for more than one objective: at each rung (epochs 1, 3, 9, …) a network goes
on only if no other dominates it, or it is among the best `1 / eta` of all that have come to this rung. What is best of
several objectives: the fronts of non-dominated sorting first, within a front those farthest from the ones before (an
epsilon net), so that both ends of the front and its middle go on, not three neighbours. Latency, parameters and MACs
are known at every rung, so a network that is slow and not accurate falls at the first.

Nothing is kept but what each trial notes at its rungs (`rung@3`), so a study goes on where it was, and one worker's
decisions depend on nothing but its finished trials. A network is stopped for good: none is taken up again later.

Source: Li et al. 2020, https://arxiv.org/abs/1810.05934 (ASHA; here the variant that stops, not the one that promotes);
Schmucker et al. 2021, https://arxiv.org/abs/2106.12639 (several objectives, ranking by non-dominated sorting and an
epsilon net)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from archdsl.spec.model import Spec
from archdsl.study.hypervolume import costs, layers, nondominated
from archdsl.study.objectives import Objective
from archdsl.study.record import Record
from archdsl.training import Accuracy
from archdsl.training.evaluator import Stepwise

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Stopped(Exception):
    """A network is not trained further: it is behind others."""


@dataclass(frozen=True)
class Halving:
    """When networks are looked at, and how many go on.

    epochs: of the whole training; first: the first rung, in epochs; eta: each rung is so many times the one before, and
    the best 1 / eta of a rung go on. The last rung is the end of the training, where nobody is stopped.
    """

    epochs: int
    first: int = 1
    eta: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.epochs or self.eta < 2:
            raise ValueError(f"rungs from epoch {self.first} by {self.eta} in {self.epochs} epochs")

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which networks are looked at, before the last."""
        found, at = [], self.first
        while at < self.epochs:
            found.append(at)
            at *= self.eta
        return tuple(found)

    def goes_on(
        self, mine: Sequence[float], others: Iterable[Sequence[float]], objectives: Sequence[Objective]
    ) -> bool:
        """Whether a network goes on from a rung, by its values and those of all others that have been there.

        The first `eta - 1` at a rung have too few to be compared with, and go on; so does whoever nobody dominates,
        because a front may have more members than the best `1 / eta`.
        """
        rows = [costs(values, objectives) for values in (mine, *others)]
        if len(rows) < self.eta or nondominated(rows)[0]:
            return True
        return ranked(rows).index(0) < ceil(len(rows) / self.eta)


def ranked(rows: ArrayLike) -> list[int]:
    """Indices of points [n, d], less is better, the best first: front by front, each as an epsilon net.

    The net begins with the best of the first column; then always the one that is farthest from all that were taken,
    the fronts before included. Distances are in the range that each column has among all points.
    """
    points = np.asarray(rows, dtype=float)
    width = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(width > 0, width, 1.0)
    level = layers(points)
    gaps = np.full(len(points), np.inf)
    taken: list[int] = []
    for front in range(int(level.max()) + 1):
        left = np.flatnonzero(level == front)
        while len(left):
            place = int(gaps[left].argmax()) if taken else int(points[left, 0].argmin())
            taken.append(int(left[place]))
            gaps = np.minimum(gaps, ((scaled - scaled[taken[-1]]) ** 2).sum(axis=1))
            left = np.delete(left, place)
    return taken


def train(
    halving: Halving,
    evaluator: Stepwise[Spec],
    spec: Spec,
    *,
    seed: int,
    objectives: Sequence[Objective],
    values_with: Callable[[float], Sequence[float]],
    others: Callable[[], Iterable[Record]],
    keep: Callable[[str, object], None],
) -> Accuracy:
    """Train from rung to rung. -> the accuracy at the end

    values_with: accuracy -> the objectives' values; others: records of the study's other networks
    keep: given `accuracy` and `rung@…` (the values there) at every rung
    Errors: Stopped; what the evaluator raises
    """
    for epoch in halving.rungs:
        accuracy = evaluator.advance(spec, seed=seed, to_epoch=epoch)
        mine = list(values_with(accuracy.mean))
        keep("accuracy", accuracy.as_json())
        keep(f"rung@{epoch}", mine)
        there = [record.rungs[epoch] for record in others() if epoch in record.rungs]
        if not halving.goes_on(mine, there, objectives):
            evaluator.discard(spec, seed=seed)
            place = f"not among the best 1/{halving.eta} of {len(there) + 1}"
            raise Stopped(f"behind after {epoch} of {halving.epochs} epochs: {place}")
    return evaluator.advance(spec, seed=seed, to_epoch=halving.epochs)
