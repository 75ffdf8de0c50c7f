"""The networks that no other beats in every objective, and which of them noise cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from archdsl.study.objectives import Objective
from archdsl.study.record import Record

STANDARD_ERRORS = 2.0
"""Half the width of an accuracy's interval, in standard errors: about 95 %."""


@dataclass(frozen=True)
class Point:
    """One network by its objectives' values, each with the interval that its noise leaves open."""

    record: Record
    values: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FrontPoint:
    """A network of the front. tied_with: trials of the front that noise cannot tell from it in any objective."""

    point: Point
    tied_with: tuple[int, ...]

    @property
    def record(self) -> Record:
        return self.point.record


@dataclass(frozen=True)
class Front:
    """members: best accuracy first (first objective); contenders: beaten, but only by networks within their noise."""

    objectives: tuple[Objective, ...]
    members: tuple[FrontPoint, ...]
    contenders: tuple[Point, ...]
    others: tuple[Point, ...]


def front_of(records: Iterable[Record], objectives: Sequence[Objective]) -> Front:
    """The front of all complete, feasible, distinct networks."""
    points = [_point(record, objectives) for record in _distinct(records)]
    best = unbeaten(points, objectives)
    best.sort(key=lambda point: (objectives[0].sign * point.values[0], point.record.number))
    numbers = {point.record.number for point in best}
    beaten = [point for point in points if point.record.number not in numbers]
    members = tuple(
        FrontPoint(p, tuple(q.record.number for q in best if q is not p and inseparable(p, q))) for p in best
    )
    surely_beaten = _surely_beaten(beaten, best, points, objectives)
    contenders = tuple(p for p, surely in zip(beaten, surely_beaten, strict=True) if not surely)
    others = tuple(p for p, surely in zip(beaten, surely_beaten, strict=True) if surely)
    return Front(tuple(objectives), members, contenders, others)


def unbeaten(points: Sequence[Point], objectives: Sequence[Objective]) -> list[Point]:
    """The points that no other dominates, in their order. Whoever dominates a point comes before it when sorted."""
    signs = [objective.sign for objective in objectives]
    ordered = sorted(points, key=lambda point: [sign * value for sign, value in zip(signs, point.values, strict=True)])
    best: list[Point] = []
    for point in ordered:
        if not any(dominates(other.values, point.values, objectives) for other in best):
            best.append(point)
    kept = {id(point) for point in best}
    return [point for point in points if id(point) in kept]


def dominates(a: Sequence[float], b: Sequence[float], objectives: Sequence[Objective]) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better."""
    pairs = [(o.sign * x, o.sign * y) for o, x, y in zip(objectives, a, b, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def has_gained(records: Iterable[Record], objectives: Sequence[Objective], last: int) -> bool:
    """Whether the last `last` networks paid for brought something that no network before them may be as good as.

    As good it may be when, within the noise of both, it is nowhere worse. So a network that looks better by less than
    its error bars is no gain, and neither is one that failed, was stopped or breaks a constraint. With no more than
    `last` networks paid for there was nothing before them: True.
    """
    paid = [record for record in records if record.state != "open" and not record.cheap]
    if len(paid) <= last:
        return True
    before = [_point(record, objectives) for record in _distinct(paid[:-last])]
    after = [_point(record, objectives) for record in _distinct(paid[-last:])]
    return any(not any(_may_be_as_good(q, p, objectives) for q in before) for p in after)


def _may_be_as_good(q: Point, p: Point, objectives: Sequence[Objective]) -> bool:
    """Whether the noise leaves it open that `q` is nowhere worse than `p`."""
    triples = zip(objectives, q.intervals, p.intervals, strict=True)
    return all(low <= p_high if one.sign > 0 else high >= p_low for one, (low, high), (p_low, p_high) in triples)


def inseparable(p: Point, q: Point) -> bool:
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
    timing = record.taken.get(objective.target)
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
    """The objectives in which a network's confirmation and the search differ by more than the noise of both."""
    if record.before is None:
        return ()
    now, then = _point(record, objectives), _point(record.before, objectives)
    triples = zip(objectives, now.intervals, then.intervals, strict=True)
    return tuple(one for one, (low, high), (least, most) in triples if low > most or high < least)


def _surely_beaten(
    beaten: Sequence[Point], best: Sequence[Point], points: Sequence[Point], objectives: Sequence[Objective]
) -> list[bool]:
    """For each of `beaten`: whether some network that dominates it can be told from it; mostly one of `best` can."""
    if not beaten:
        return []
    signs = np.array([objective.sign for objective in objectives])

    def any_of(others: Sequence[Point]) -> Callable[[Point], bool]:
        values = np.array([point.values for point in others]) * signs
        low, high = np.moveaxis(np.array([point.intervals for point in others]), 2, 0)

        def surely_beats(p: Point) -> bool:
            mine, (my_low, my_high) = np.array(p.values) * signs, np.array(p.intervals).T
            dominating = (values <= mine).all(axis=1) & (values < mine).any(axis=1)
            overlapping = ((my_low <= high) & (low <= my_high)).all(axis=1)
            return bool((dominating & ~overlapping).any())

        return surely_beats

    by_the_best, by_any = any_of(best), any_of(points)
    return [by_the_best(p) or by_any(p) for p in beaten]
