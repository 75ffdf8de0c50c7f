"""The front as an SVG picture, legible on light and on dark pages: first objective up, second across."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from archdsl.report.axis import Axis, axis
from archdsl.study.front import Front, Point
from archdsl.study.objectives import Objective

WIDTH, HEIGHT = 760, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 52, 58
_LETTER = 6.8  # about the width of a letter
_SHIFTS = (-9, 19, 34, 49, -24)  # of a name from its point, downwards, the best first
_Box = tuple[float, float, float, float]  # left, right, top, bottom
_STYLE = """
  .page { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e }
  .grid { stroke: #d1d9e0; stroke-width: 1 } .axis { stroke: #59636e; stroke-width: 1 }
  .front { fill: #0969da } .line { stroke: #0969da; stroke-width: 2; fill: none }
  .bar { stroke: #0969da; stroke-width: 1.5; opacity: .6 }
  .rest { fill: #818b98 } .near { stroke: #0969da; fill: #ffffff; stroke-width: 1.5 }
  .halo { paint-order: stroke; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round }
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif } .title { font-size: 15px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .ink { fill: #f0f6fc } .soft { fill: #9198a1 }
    .grid { stroke: #30363d } .axis { stroke: #9198a1 }
    .front { fill: #58a6ff } .line, .bar { stroke: #58a6ff }
    .rest { fill: #6e7681 } .near { stroke: #58a6ff; fill: #0d1117 }
    .halo { stroke: #0d1117 }
  }"""


def front_svg(front: Front, names: Sequence[str], title: str) -> str:
    """The picture of the first two objectives. names: of the front's members, in their order"""
    up, across = front.objectives[0], front.objectives[1]
    members = [member.point for member in front.members]
    points = [*members, *front.contenders, *front.others]
    xs = [end for point in members for end in point.intervals[1]] + [point.values[1] for point in points]
    ys = [end for point in members for end in point.intervals[0]] + [point.values[0] for point in points]
    x = axis(xs, _LEFT, WIDTH - _RIGHT, least=across.least, most=across.most)
    y = axis(ys, HEIGHT - _BOTTOM, _TOP, least=up.least, most=up.most)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{_text(title)}</title>",
        f"<style>{_STYLE}\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="ink title" x="{_LEFT}" y="26">{_text(title)}</text>',
        *_grid(x, y, across, up),
        *(_dot(point, x, y, "rest", 3.5) for point in front.others),
        *(_dot(point, x, y, "near", 4) for point in front.contenders),
        f'<path class="line" d="{_steps(members, x, y, up, across)}"/>',
        *(bar for point in members for bar in _bars(point, x, y)),
        *(_dot(point, x, y, "front", 5) for point in members),
        *_labels(members, names, x, y),
        _legend(front),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _grid(x: Axis, y: Axis, across: Objective, up: Objective) -> list[str]:
    bottom, middle = HEIGHT - _BOTTOM, (_TOP + HEIGHT - _BOTTOM) / 2
    lines = []
    for tick in y.ticks:
        at = _px(y.at(tick))
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        lines.append(f'<text class="soft" x="{_LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{y.label(tick)}</text>')
    for tick in x.ticks:
        at = _px(x.at(tick))
        lines.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 5}"/>')
        lines.append(f'<text class="soft" x="{at}" y="{bottom + 19}" text-anchor="middle">{x.label(tick)}</text>')
    lines.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    centre = (_LEFT + WIDTH - _RIGHT) / 2
    lines.append(
        f'<text class="ink" x="{_px(centre)}" y="{HEIGHT - 16}" text-anchor="middle">{_text(across.title)}</text>'
    )
    turned = f'transform="rotate(-90 20 {_px(middle)})"'
    lines.append(f'<text class="ink" x="20" y="{_px(middle)}" {turned} text-anchor="middle">{_text(up.title)}</text>')
    return lines


def _steps(members: Sequence[Point], x: Axis, y: Axis, up: Objective, across: Objective) -> str:
    """The edge of what the front dominates: from point to point by right angles."""
    path = ""
    previous: Point | None = None
    for point in sorted(members, key=lambda p: (across.sign * p.values[1], up.sign * p.values[0])):
        at_x, at_y = _px(x.at(point.values[1])), _px(y.at(point.values[0]))
        path += f"M{at_x} {at_y}" if previous is None else f" H{at_x} V{at_y}"
        previous = point
    return path


def _bars(point: Point, x: Axis, y: Axis) -> list[str]:
    at_x, at_y = _px(x.at(point.values[1])), _px(y.at(point.values[0]))
    (low_y, high_y), (low_x, high_x) = point.intervals[0], point.intervals[1]
    bars = []
    if low_x < high_x:
        ends = f'x1="{_px(x.at(low_x))}" x2="{_px(x.at(high_x))}"'
        bars.append(f'<line class="bar" {ends} y1="{at_y}" y2="{at_y}"/>')
    if low_y < high_y:
        ends = f'y1="{_px(y.at(low_y))}" y2="{_px(y.at(high_y))}"'
        bars.append(f'<line class="bar" x1="{at_x}" x2="{at_x}" {ends}/>')
    return bars


def _dot(point: Point, x: Axis, y: Axis, kind: str, radius: float) -> str:
    hint = f"<title>{_text(point.record.name or f'trial {point.record.number}')}</title>"
    centre = f'cx="{_px(x.at(point.values[1]))}" cy="{_px(y.at(point.values[0]))}"'
    return f'<circle class="{kind}" {centre} r="{radius}">{hint}</circle>'


def _labels(members: Sequence[Point], names: Sequence[str], x: Axis, y: Axis) -> list[str]:
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
        place = f'x="{_px(at_x + 9 if right else at_x - 9)}" y="{_px(at_y + shift)}"'
        anchor = f'text-anchor="{"start" if right else "end"}"'
        labels.append(f'<text class="ink halo" {place} {anchor}>{_text(name)}</text>')
    return labels


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _legend(front: Front) -> str:
    words = [f"{len(front.members)} on the front", f"{len(front.others)} beaten"]
    if front.contenders:
        words.insert(1, f"{len(front.contenders)} within noise of it")
    return f'<text class="soft" x="{WIDTH - _RIGHT}" y="26" text-anchor="end">{_text(" · ".join(words))}</text>'


def _px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    """Text for SVG: escaped, without characters that XML forbids."""
    return escape("".join(char if char.isprintable() else " " for char in text)[:300])
