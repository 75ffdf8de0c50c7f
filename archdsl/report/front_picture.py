"""The front as a picture: SVG, legible on light and on dark pages, and characters for the terminal.

The first objective is up, the second across.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10
from typing import Any

from archdsl.language.text.quantities import count_text
from archdsl.report.templates import px, template
from archdsl.study.front.pareto import Front, Point
from archdsl.study.objectives import Objective

WIDTH, HEIGHT = 760, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 52, 58
_LETTER = 6.8  # about the width of a letter
_SHIFTS = (-9, 19, 34, 49, -24)  # of a name from its point, downwards, the best first
_Box = tuple[float, float, float, float]  # left, right, top, bottom


def front_svg(front: Front, names: Sequence[str], title: str) -> str:
    """The picture of the first two objectives. names: of the front's members, in their order"""
    up, across = front.objectives[0], front.objectives[1]
    members = [member.point for member in front.members]
    points = [*members, *front.contenders, *front.others]
    xs = [end for point in members for end in point.intervals[1]] + [point.values[1] for point in points]
    ys = [end for point in members for end in point.intervals[0]] + [point.values[0] for point in points]
    x = axis(xs, _LEFT, WIDTH - _RIGHT, least=across.least, most=across.most)
    y = axis(ys, HEIGHT - _BOTTOM, _TOP, least=up.least, most=up.most)
    words = [f"{len(front.members)} on the front", f"{len(front.others)} dominated"]
    if front.contenders:
        words.insert(1, f"{len(front.contenders)} within noise of it")
    return template("front.svg.j2").render(
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        top=_TOP,
        bottom=HEIGHT - _BOTTOM,
        title=title,
        legend=" · ".join(words),
        x=x,
        y=y,
        front=front,
        path=staircase(members, x, y, up, across),
        labels=_labels(members, names, x, y),
    )


def staircase(members: Sequence[Point], x: Axis, y: Axis, up: Objective, across: Objective) -> str:
    """The edge of what the front dominates: from point to point by right angles."""
    path = ""
    previous: Point | None = None
    for point in sorted(members, key=lambda p: (across.sign * p.values[1], up.sign * p.values[0])):
        at_x, at_y = px(x.at(point.values[1])), px(y.at(point.values[0]))
        path += f"M{at_x} {at_y}" if previous is None else f" H{at_x} V{at_y}"
        previous = point
    return path


def _labels(members: Sequence[Point], names: Sequence[str], x: Axis, y: Axis) -> list[dict[str, Any]]:
    """Names beside their points: on the side with room, above or below, where they cover neither point nor name."""
    spots = [(x.at(point.values[1]), y.at(point.values[0])) for point in members]
    taken = [(at_x - 6, at_x + 6, at_y - 6, at_y + 6) for at_x, at_y in spots]
    labels = []
    for (at_x, at_y), name in zip(spots, names, strict=True):
        wide = _LETTER * len(name)
        right = at_x + 9 + wide < WIDTH - 4
        start = at_x + 9 if right else at_x - 9 - wide

        def box(shift: float, start: float = start, wide: float = wide, at_y: float = at_y) -> _Box:
            return start, start + wide, at_y + shift - 11, at_y + shift + 3

        free = [shift for shift in _SHIFTS if not any(_overlap(box(shift), other) for other in taken)]
        shift = free[0] if free else _SHIFTS[0]
        taken.append(box(shift))
        edge = {"x": at_x + 9, "anchor": "start"} if right else {"x": at_x - 9, "anchor": "end"}
        labels.append({**edge, "y": at_y + shift, "name": name})
    return labels


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def front_scatter(front: Front, *, width: int = 64, height: int = 14) -> str:
    """`●` is the front, `·` the dominated networks. Empty when there is no front."""
    up, across = front.objectives[0], front.objectives[1]
    members = [member.point for member in front.members]
    rest = [*front.contenders, *front.others]
    if not members:
        return ""
    points = [*members, *rest]
    x = axis([point.values[1] for point in points], 0, width - 1, num_ticks=5, least=across.least, most=across.most)
    y = axis([point.values[0] for point in points], height - 1, 0, num_ticks=4, least=up.least, most=up.most)
    cells = [[" "] * width for _ in range(height)]
    for point, mark in [*((point, "·") for point in rest), *((point, "●") for point in members)]:
        cells[round(y.at(point.values[0]))][round(x.at(point.values[1]))] = mark
    marks = {round(y.at(tick)): y.label(tick) for tick in y.ticks}
    edge = max(len(label) for label in marks.values())
    lines = [f"{up.title}", *(f"{marks.get(row, ''):>{edge}} ┤{''.join(cells[row])}" for row in range(height))]
    below = [" "] * (width + 12)
    for tick in x.ticks:
        text, at = x.label(tick), round(x.at(tick))
        if all(cell == " " for cell in below[max(0, at - 1) : at + len(text) + 1]):
            below[at : at + len(text)] = text
    lines.append(f"{'':>{edge}} └{'─' * width}")
    lines.append(f"{'':>{edge}}  {''.join(below).rstrip()}  {across.title}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Axis:
    """Values low … high on pixels (or columns) start … end, with ticks at round numbers."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The pixel (or column) of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def label(self, tick: float) -> str:
        """The text beside a tick: as many decimals as the step needs."""
        if max(abs(self.low), abs(self.high)) >= 10_000:
            return count_text(tick, ".4g")
        step = self.ticks[1] - self.ticks[0]
        decimals = max(0, -floor(log10(step)))
        exact = abs(round(step, decimals) - step) < 1e-6 * step  # a step of 0.25 needs one more than its first digit
        return f"{tick:.{decimals if exact else decimals + 1}f}"


def axis(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    num_ticks: int = 6,
    least: float = -inf,
    most: float = inf,
) -> Axis:
    """An axis that holds all values with some room, from one round number to another, within least … most."""
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = (high - low) or abs(high) * 0.1 or 1.0
    low, high = max(least, low - 0.04 * span), min(most, high + 0.04 * span)
    rough = (high - low) / num_ticks
    scale = 10.0 ** floor(log10(rough))
    step = next(scale * nice for nice in (1, 2, 2.5, 5, 10) if scale * nice >= rough)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)
