"""Hypervolume: the volume of objective space that a set of networks dominates.

Points are rows of numbers of which less is better; `Objective.sign` makes them from values. Exact for any number of
objectives, in time that grows with the number of points to the power of objectives - 1 at worst: meant for the fronts
of two to four objectives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archdsl.study.objectives import Objective
from archdsl.study.record import Record

Array = NDArray[np.float64]
MOST_OBJECTIVES = 4


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume that points [n, d] dominate up to a reference point [d]; what lies beyond it adds nothing.

    Source: Zitzler and Thiele 1998; computed by slicing the last objective (While et al. 2006)
    Raises: ValueError when the shapes do not fit or something is not finite
    """
    worst = np.asarray(reference, dtype=float)
    rows = np.asarray(points, dtype=float).reshape(-1, worst.size)
    if not (np.isfinite(rows).all() and np.isfinite(worst).all()):
        raise ValueError("the hypervolume of points that are not finite")
    return _volume(rows[(rows < worst).all(axis=1)], worst)


def _volume(rows: Array, worst: Array) -> float:
    if len(rows) == 0:
        return 0.0
    if worst.size == 1:
        return float(worst[0] - rows.min())
    rows = rows[np.lexsort(rows.T)]  # by the last objective, best first
    if worst.size == 2:
        lowest = np.minimum.accumulate(rows[:, 0])
        tops = np.append(rows[1:, 1], worst[1])
        return float(((worst[0] - lowest) * (tops - rows[:, 1])).sum())
    ends = np.append(rows[1:, -1], worst[-1])
    total, slab = 0.0, rows[:0, :-1]
    for row, end in zip(rows, ends, strict=True):
        slab = _with_last(np.vstack([slab, row[:-1]]))
        if end > row[-1]:
            total += (end - row[-1]) * _volume(slab, worst[:-1])
    return total


def _with_last(rows: Array) -> Array:
    """Rows that the last one does not dominate; without the last where another dominates it."""
    old, new = rows[:-1], rows[-1]
    if (old <= new).all(axis=1).any():
        return old
    return np.vstack([old[~(new <= old).all(axis=1)], new])


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points [n, d] are non-dominated, equal ones included, as booleans [n]."""
    rows = np.asarray(points, dtype=float)
    found = np.zeros(len(rows), dtype=np.bool_)
    left = np.lexsort(rows.T)  # a point comes after those that dominate it
    while len(left):
        best, rest = rows[left[0]], rows[left]
        found[left[0]] = True
        is_dominated = (best <= rest).all(axis=1) & (best < rest).any(axis=1)
        is_dominated[0] = True
        left = left[~is_dominated]
    return found


def non_domination_ranks(points: ArrayLike) -> NDArray[np.int64]:
    """For each of the points [n, d] its rank: 0 is not dominated, 1 by points of rank 0 alone, … -> [n]

    Source: Srinivas and Deb 1994 (non-dominated sorting)
    """
    dominates = _dominates(np.asarray(points, dtype=float))
    found = np.full(len(dominates), -1, dtype=np.int64)
    num_above = dominates.sum(axis=0)
    level = 0
    while (found < 0).any():
        here = (found < 0) & (num_above == 0)
        found[here] = level
        num_above = num_above - dominates[here].sum(axis=0)
        level += 1
    return found


def _dominates(rows: Array) -> NDArray[np.bool_]:
    """[n, d] -> [n, n]: whether the first is nowhere worse than the second, and somewhere better."""
    no_worse = np.ones((len(rows), len(rows)), dtype=np.bool_)
    better = np.zeros_like(no_worse)
    for column in rows.T:
        no_worse &= column[:, None] <= column[None]
        better |= column[:, None] < column[None]
    return no_worse & better


def costs(values: Sequence[float], objectives: Sequence[Objective]) -> list[float]:
    """A trial's values with the signs turned so that less is better."""
    return [objective.sign * value for objective, value in zip(objectives, values, strict=True)]


def hypervolume_history(
    records: Iterable[Record], objectives: Sequence[Objective], reference: Sequence[float] | None = None
) -> list[float]:
    """The hypervolume after each evaluated network, in the order of the trials.

    reference: values that are worse than any of interest; by default the worst of all complete trials, a tenth further
    """
    evaluated = [record for record in records if record.state != "open" and not record.cheap]
    rows = [costs(r.values, objectives) if r.state == "complete" and r.values is not None else None for r in evaluated]
    known = np.array([row for row in rows if row is not None]).reshape(-1, len(objectives))
    if reference is not None:
        worst = np.array(costs(reference, objectives))
    elif len(known):
        worst = known.max(axis=0) + 0.1 * np.ptp(known, axis=0) + 1e-12
    else:
        return [0.0] * len(rows)
    found: list[float] = []
    front = known[:0]
    for row in rows:
        if row is not None:
            front = np.vstack([front, row])
            front = front[non_dominated(front)]
        found.append(hypervolume(front, worst))
    return found
