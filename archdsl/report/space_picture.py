"""A space as a picture: what may be chosen where, each option a chip; choices inside an option stand below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archdsl.language import Space
from archdsl.language.space.choices import Choice
from archdsl.report.templates import bounded, template

_LETTER = 6.6
_LEFT, _TOP, _CHIPS, _WIDEST = 24, 56, 230, 960
_LINE, _PAD, _GAP, _INDENT = 30, 10, 8, 18
_LONGEST = 60
"""Letters of one option."""


@dataclass(frozen=True)
class Chip:
    """An option where it is drawn. x, y: its upper left corner"""

    text: str
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Row:
    """One choice. x, y: where its name stands"""

    name: str
    x: float
    y: float
    chips: tuple[Chip, ...]


def space_svg(space: Space, num_distinct: str) -> str:
    """The picture of a space: SVG, legible on light and on dark pages. num_distinct: its networks, in words"""
    rows, bottom = [], float(_TOP)
    for choice, depth in _nested(space.choices):
        row, bottom = _row(choice, depth, bottom)
        rows.append(row)
    right = max((chip.x + chip.width for row in rows for chip in row.chips), default=0)
    return template("space.svg.j2").render(
        width=max(right + _LEFT, 480),
        height=bottom + 12,
        left=_LEFT,
        title=space.name,
        sums=f"over {space.base.name} · {len(space.choices)} choices · {num_distinct}",
        rows=rows,
    )


def _nested(choices: tuple[Choice, ...]) -> Iterator[tuple[Choice, int]]:
    """Every choice with how many others it depends on: one inside an option follows the choice of that option."""
    depth: dict[str, int] = {}
    for choice in choices:
        depth[choice.name] = 0 if choice.parent is None else depth.get(choice.parent[0], 0) + 1
        yield choice, depth[choice.name]


def _row(choice: Choice, depth: int, top: float) -> tuple[Row, float]:
    """The choice with its chips, which wrap, and where the next begins."""
    chips, x, y = [], float(_LEFT + _CHIPS), top
    for label in choice.labels:
        text = bounded(label, _LONGEST)
        width = _LETTER * len(text) + 2 * _PAD
        if x + width > _WIDEST and x > _LEFT + _CHIPS:
            x, y = float(_LEFT + _CHIPS), y + _LINE
        chips.append(Chip(text, x, y, width))
        x += width + _GAP
    return Row(choice.name, _LEFT + _INDENT * depth, top + 16, tuple(chips)), y + _LINE
