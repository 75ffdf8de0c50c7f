"""The fronts of several searches in one table and one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archdsl.language.text.quantities import count_text
from archdsl.report.front_picture import HEIGHT, WIDTH, axis, staircase
from archdsl.report.front_rows import FrontRow
from archdsl.report.front_table import value_text
from archdsl.report.templates import template
from archdsl.report.terminal_table import TerminalTable
from archdsl.study.front.joint import JointFront, Standing
from archdsl.study.front.pareto import Front
from archdsl.study.objectives import OBJECTIVES

_LEFT, _RIGHT, _BOTTOM = 76, 24, 58
_TITLE, _LEGEND_LINE = 44, 18
_COLORS = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#007a5a", "#2fc79a"),
    ("#a64d79", "#e39ac4"),
    ("#8a6d00", "#f0e442"),
    ("#444c56", "#b1bac4"),
)
"""On light and on dark pages; distinct also for the colour-blind (after Okabe and Ito)."""
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "M-4.5 -4.5h9v9h-9z",
    "M0 -5.5L5.5 4.5H-5.5z",
    "M0 -6L6 0L0 6L-6 0z",
)
"""Circle, square, triangle, diamond."""


@dataclass(frozen=True)
class ComparedFront:
    """One search. label: how it is called; rows: of its front; num_evaluated: networks"""

    label: str
    front: Front
    rows: Sequence[FrontRow]
    num_evaluated: int


def networks_table(fronts: Sequence[ComparedFront], joint: JointFront) -> TerminalTable:
    """Every network of the fronts, the best of the first objective first, and whether it is on the joint front."""
    objectives = fronts[0].front.objectives
    counts = [OBJECTIVES[name] for name in ("params", "macs") if name not in {one.name for one in objectives}]
    lines: list[tuple[float, list[str]]] = []
    for one, standings in zip(fronts, joint.standings, strict=True):
        for row, member, standing in zip(one.rows, one.front.members, standings, strict=True):
            cells = [row.name, one.label, *(value_text(row.record, objective) for objective in objectives)]
            cells += [*(count_text(getattr(row.record, count.kind)) for count in counts), standing]
            lines.append((objectives[0].sign * member.point.values[0], cells))
    lines.sort(key=lambda line: line[0])
    numbers = [one.name for one in (*objectives, *counts)]
    heads = ("network", "search", *numbers, "joint front")
    optional = tuple(count.name for count in reversed(counts))
    return TerminalTable(heads, [cells for _, cells in lines], right=numbers, optional=optional)


def searches_table(fronts: Sequence[ComparedFront], joint: JointFront) -> TerminalTable:
    """What each search has found, and its part of the joint front."""
    heads = ("search", "networks evaluated", "on its front", "on the joint front", "hypervolume")
    lines = [
        (one.label, str(one.num_evaluated), str(len(one.rows)), str(standings.count("yes")), _share(share))
        for one, standings, share in zip(fronts, joint.standings, joint.shares, strict=True)
    ]
    return TerminalTable(heads, lines, right=heads[1:])


def conditions_table(labels: Sequence[str], conditions: Mapping[str, Sequence[str]], title: str) -> TerminalTable:
    """Conditions that differ: a row for each condition and search."""
    lines = [
        (name if index == 0 else "", label, value)
        for name, values in conditions.items()
        for index, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    return TerminalTable(("condition", "search", "value"), lines, prose=("condition", "value"), title=title)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.3f}"


def comparison_svg(fronts: Sequence[ComparedFront], joint: JointFront, title: str) -> str:
    """The picture of the first two objectives; networks that are not on the joint front are faint."""
    up, across = fronts[0].front.objectives[:2]
    points = [member.point for one in fronts for member in one.front.members]
    top = _TITLE + _LEGEND_LINE * len(fronts) + 8
    height = HEIGHT + _LEGEND_LINE * len(fronts)
    x = axis([p.values[1] for p in points], _LEFT, WIDTH - _RIGHT, least=across.least, most=across.most)
    y = axis([p.values[0] for p in points], height - _BOTTOM, top, least=up.least, most=up.most)

    def dots(one: ComparedFront, standings: Sequence[Standing]) -> list[dict[str, object]]:
        trios = zip(one.rows, one.front.members, standings, strict=True)
        return [
            {
                "x": x.at(member.point.values[1]),
                "y": y.at(member.point.values[0]),
                "title": f"{one.label}: {row.name}, "
                + ", ".join(f"{each.name} {value_text(row.record, each)}" for each in one.front.objectives),
                "is_dominated": standing == "no",
            }
            for row, member, standing in trios
        ]

    series = [
        {
            "color": index % len(_COLORS),
            "shape": _SHAPES[index % len(_SHAPES)],
            "legend_y": _TITLE + _LEGEND_LINE * index + 6,
            "legend": f"{one.label}: {standings.count('yes')} of {len(one.rows)} on the joint front",
            "path": staircase([member.point for member in one.front.members], x, y, up, across),
            "dots": dots(one, standings),
        }
        for index, (one, standings) in enumerate(zip(fronts, joint.standings, strict=True))
    ]
    return template("comparison.svg.j2").render(
        width=WIDTH,
        height=height,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        top=top,
        bottom=height - _BOTTOM,
        title=title,
        up=up,
        across=across,
        x=x,
        y=y,
        colors=_COLORS,
        series=series,
    )
