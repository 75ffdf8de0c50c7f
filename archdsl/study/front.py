"""The networks that no other beats in every objective, and which of them noise cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    best = [p for p in points if not any(dominates(q.values, p.values, objectives) for q in points)]
    best.sort(key=lambda point: (objectives[0].sign * point.values[0], point.record.number))
    numbers = {point.record.number for point in best}
    beaten = [point for point in points if point.record.number not in numbers]
    members = tuple(
        FrontPoint(p, tuple(q.record.number for q in best if q is not p and inseparable(p, q))) for p in best
    )
    contenders = tuple(p for p in beaten if not _surely_beaten(p, points, objectives))
    others = tuple(p for p in beaten if p not in contenders)
    return Front(tuple(objectives), members, contenders, others)


def dominates(a: Sequence[float], b: Sequence[float], objectives: Sequence[Objective]) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better."""
    pairs = [(o.sign * x, o.sign * y) for o, x, y in zip(objectives, a, b, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def inseparable(p: Point, q: Point) -> bool:
    """Whether the intervals of two networks overlap in every objective."""
    pairs = zip(p.intervals, q.intervals, strict=True)
    return all(low <= other_high and other_low <= high for (low, high), (other_low, other_high) in pairs)


def hypervolume(
    values: Iterable[Sequence[float]], reference: Sequence[float], objectives: Sequence[Objective]
) -> float:
    """The area between two-objective points and a reference point; points beyond the reference add nothing."""
    if len(objectives) != 2:
        raise ValueError(f"this is the area of two objectives, but got {len(objectives)}")
    signs = [objective.sign for objective in objectives]
    worst_x, worst_y = (sign * value for sign, value in zip(signs, reference, strict=True))
    points = sorted((signs[0] * x, signs[1] * y) for x, y in values)
    area, lowest = 0.0, worst_y
    for x, y in points:
        if x < worst_x and y < lowest:
            area += (worst_x - x) * (lowest - y)
            lowest = y
    return area


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
    return Point(record, record.values, tuple(_interval(record, objective.name, value) for objective, value in pairs))


def _interval(record: Record, name: str, value: float) -> tuple[float, float]:
    if name == "accuracy" and record.accuracy is not None:
        reach = STANDARD_ERRORS * record.accuracy.standard_error
        return max(0.0, value - reach), min(1.0, value + reach)
    if name == "latency" and record.timing is not None:
        return record.timing.ci_low_ms, record.timing.ci_high_ms
    return value, value


def _surely_beaten(p: Point, points: Sequence[Point], objectives: Sequence[Objective]) -> bool:
    """Whether some network that dominates `p` can be told from it."""
    return any(dominates(q.values, p.values, objectives) and not inseparable(p, q) for q in points)
