"""The fronts of several studies as one: which of their networks are non-dominated among all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from archdsl.study.front.pareto import Front, Point, indistinguishable
from archdsl.study.hypervolume import costs, hypervolume, non_dominated

Standing = Literal["yes", "within noise", "no"]
"""Whether a network is on the joint front; `within noise`: only indistinguishable networks dominate it."""


@dataclass(frozen=True)
class JointFront:
    """What becomes of several fronts when their networks are one set.

    standings: for each front, that of each of its members, in their order
    shares: the hypervolume of each front as a share of the joint one, in [0, 1]; None where that is 0
    """

    standings: tuple[tuple[Standing, ...], ...]
    shares: tuple[float | None, ...]

    @property
    def num_members(self) -> int:
        """How many networks are on the joint front; one that two studies have found counts twice."""
        return sum(standing == "yes" for standings in self.standings for standing in standings)


def joint_front(fronts: Sequence[Front]) -> JointFront:
    """The joint front of fronts with the same objectives.

    The hypervolume's reference point is the worst value of all members in each objective, a tenth of their range
    further.
    Raises: ValueError when the objectives differ
    """
    objectives = fronts[0].objectives
    if any(front.objectives != objectives for front in fronts):
        raise ValueError("the fronts have different objectives")
    points = [[member.point for member in front.members] for front in fronts]
    every = [point for members in points for point in members]
    if not every:
        return JointFront(tuple(() for _ in fronts), tuple(None for _ in fronts))
    rows = {id(point): np.array(costs(point.values, objectives)) for point in every}
    table = np.array([rows[id(point)] for point in every])
    best = {id(point) for point, is_best in zip(every, non_dominated(table), strict=True) if is_best}

    def standing(point: Point) -> Standing:
        if id(point) in best:
            return "yes"
        mine = rows[id(point)]
        above = [q for q in every if (rows[id(q)] <= mine).all() and (rows[id(q)] < mine).any()]
        return "within noise" if all(indistinguishable(point, q) for q in above) else "no"

    reference = table.max(axis=0) + 0.1 * np.ptp(table, axis=0)
    total = hypervolume(table, reference)
    shares = [hypervolume([rows[id(point)] for point in members], reference) for members in points]
    return JointFront(
        tuple(tuple(map(standing, members)) for members in points),
        tuple(share / total if total > 0 else None for share in shares),
    )
