"""The non-dominated networks of a study, and which of them are indistinguishable within the noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from archdsl.study.hypervolume import costs, non_dominated
from archdsl.study.objectives import Objective
from archdsl.study.record import Record

STANDARD_ERRORS = 2.0
"""Half the width of an accuracy's interval, in standard errors: about 95 %."""


@dataclass(frozen=True)
class Point:
    """One network: its objectives' values, each with its confidence interval (about 95 %)."""

    record: Record
    values: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FrontPoint:
    """A network of the front. tied_with: trials of the front that are indistinguishable from it in every objective."""

    point: Point
    tied_with: tuple[int, ...]

    @property
    def record(self) -> Record:
        """The network's trial."""
        return self.point.record


@dataclass(frozen=True)
class Front:
    """The networks of a study, sorted by dominance.

    members: non-dominated, the best of the first objective first
    contenders: dominated, but only by networks that are indistinguishable from them; others: clearly dominated

    Example:
        >>> from archdsl.study.objectives import chosen
        >>> front = front_of([], chosen(("params", "macs"), ()))
        >>> [objective.name for objective in front.objectives], front.members
        (['params', 'macs'], ())
    """

    objectives: tuple[Objective, ...]
    members: tuple[FrontPoint, ...]
    contenders: tuple[Point, ...]
    others: tuple[Point, ...]


def front_of(records: Iterable[Record], objectives: Sequence[Objective]) -> Front:
    """The front of all complete, feasible, distinct networks."""
    points = [_point(record, objectives) for record in _distinct(records)]
    rows = [costs(point.values, objectives) for point in points]
    flags = non_dominated(rows).tolist() if rows else []
    best = [point for point, is_best in zip(points, flags, strict=True) if is_best]
    dominated = [point for point, is_best in zip(points, flags, strict=True) if not is_best]
    best.sort(key=lambda point: (objectives[0].sign * point.values[0], point.record.number))
    members = tuple(
        FrontPoint(p, tuple(q.record.number for q in best if q is not p and indistinguishable(p, q))) for p in best
    )
    clearly = _clearly_dominated(dominated, best, points, objectives)
    contenders = tuple(p for p, is_clear in zip(dominated, clearly, strict=True) if not is_clear)
    others = tuple(p for p, is_clear in zip(dominated, clearly, strict=True) if is_clear)
    return Front(tuple(objectives), members, contenders, others)


def has_gained(records: Iterable[Record], objectives: Sequence[Objective], last: int) -> bool:
    """Whether one of the last `last` evaluated networks is better than all networks before them, beyond the noise.

    A network before is as good as a new one when, within the noise of both, it is nowhere worse. So a network that
    looks better by less than its error bars is no gain, and neither is one that failed, was stopped or violates a
    constraint. With no more than `last` evaluated networks there was nothing before them: True.
    """
    evaluated = [record for record in records if record.state != "open" and not record.cheap]
    if len(evaluated) <= last:
        return True
    before = [_point(record, objectives) for record in _distinct(evaluated[:-last])]
    after = [_point(record, objectives) for record in _distinct(evaluated[-last:])]
    return any(not any(_may_be_as_good(q, p, objectives) for q in before) for p in after)


def _may_be_as_good(q: Point, p: Point, objectives: Sequence[Objective]) -> bool:
    """Whether `q` is nowhere worse than `p`, within the noise of both."""
    triples = zip(objectives, q.intervals, p.intervals, strict=True)
    return all(low <= p_high if one.sign > 0 else high >= p_low for one, (low, high), (p_low, p_high) in triples)


def indistinguishable(p: Point, q: Point) -> bool:
    """Whether the intervals of two networks overlap in every objective."""
    pairs = zip(p.intervals, q.intervals, strict=True)
    return all(low <= other_high and other_low <= high for (low, high), (other_low, other_high) in pairs)


def _distinct(records: Iterable[Record]) -> list[Record]:
    """Complete records, the first of each network."""
    found: dict[str, Record] = {}
    for record in records:
        if record.state == "complete" and record.values is not None:
            found.setdefault(record.hash or str(record.number), record)
    return list(found.values())


def _point(record: Record, objectives: Sequence[Objective]) -> Point:
    assert record.values is not None
    pairs = zip(objectives, record.values, strict=True)
    return Point(record, record.values, tuple(_interval(record, objective, value) for objective, value in pairs))


def _interval(record: Record, objective: Objective, value: float) -> tuple[float, float]:
    if objective.kind == "accuracy" and record.accuracy is not None:
        reach = STANDARD_ERRORS * record.accuracy.standard_error
        return max(0.0, value - reach), min(1.0, value + reach)
    timing = record.timing_by_target.get(objective.target)
    if timing is None:
        return value, value
    if objective.kind == "latency":
        return timing.ci_low_ms, timing.ci_high_ms
    if objective.kind == "throughput" and timing.ci_low_ms > 0:
        images_ms = timing.batch * 1000
        return images_ms / timing.ci_high_ms, images_ms / timing.ci_low_ms
    if objective.kind == "energy" and timing.energy_plus_minus_mj is not None:
        return max(0.0, value - timing.energy_plus_minus_mj), value + timing.energy_plus_minus_mj
    return value, value


def moved(record: Record, objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """The objectives in which a network's re-evaluation and the search differ by more than the noise of both."""
    if record.before is None:
        return ()
    now, then = _point(record, objectives), _point(record.before, objectives)
    triples = zip(objectives, now.intervals, then.intervals, strict=True)
    return tuple(one for one, (low, high), (least, most) in triples if low > most or high < least)


def _clearly_dominated(
    dominated: Sequence[Point], best: Sequence[Point], points: Sequence[Point], objectives: Sequence[Objective]
) -> list[bool]:
    """For each dominated point: whether a point that dominates it is distinguishable from it; `best` is tried first."""
    if not dominated:
        return []
    signs = np.array([objective.sign for objective in objectives])

    def any_of(others: Sequence[Point]) -> Callable[[Point], bool]:
        values = np.array([point.values for point in others]) * signs
        low, high = np.moveaxis(np.array([point.intervals for point in others]), 2, 0)

        def clearly_dominates(p: Point) -> bool:
            mine, (my_low, my_high) = np.array(p.values) * signs, np.array(p.intervals).T
            dominating = (values <= mine).all(axis=1) & (values < mine).any(axis=1)
            overlapping = ((my_low <= high) & (low <= my_high)).all(axis=1)
            return bool((dominating & ~overlapping).any())

        return clearly_dominates

    by_best, by_any = any_of(best), any_of(points)
    return [by_best(p) or by_any(p) for p in dominated]
