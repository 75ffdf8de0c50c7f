"""The front as a scatter of characters for the terminal: first objective up, second across."""

from __future__ import annotations

from archdsl.report.axis import axis
from archdsl.study.front import Front


def front_scatter(front: Front, *, width: int = 64, height: int = 14) -> str:
    """`●` is the front, `·` what it beats. Empty when there is no front."""
    up, across = front.objectives[0], front.objectives[1]
    members = [member.point for member in front.members]
    beaten = [*front.contenders, *front.others]
    if not members:
        return ""
    points = [*members, *beaten]
    x = axis([point.values[1] for point in points], 0, width - 1, num_ticks=5, least=across.least, most=across.most)
    y = axis([point.values[0] for point in points], height - 1, 0, num_ticks=4, least=up.least, most=up.most)
    cells = [[" "] * width for _ in range(height)]
    for point, mark in [*((point, "·") for point in beaten), *((point, "●") for point in members)]:
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
