"""A network as a picture: each stage's map with its windows drawn to scale, its width, parameters and MACs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

from markupsafe import Markup

from archdsl.compiler import cost
from archdsl.ir.graph import Graph, Input, Node
from archdsl.ir.order import Windows
from archdsl.ir.paths import stage_of
from archdsl.language import Spec
from archdsl.language.text.quantities import count_text
from archdsl.ops.attention import Attention
from archdsl.outside_text import printable
from archdsl.report.stages import StageFacts
from archdsl.report.templates import bounded, px, template

COLUMN, ROW, SIDE = 156, 272, 104
"""Of a stage: width and height of its cell, and the longer side of its map, in pixels."""
IN_A_ROW = 6
_LEFT, _TOP = 24, 56
_BAR = 112
_MOST_LINES = 64
"""Windows a side; a grid of more would be a grey square."""


@dataclass(frozen=True)
class Cell:
    """One stage where it is drawn.

    x, y: the middle of its map's upper edge; width, height: of the map, 0 where there is none
    windows, shifted: the paths of the borders of its windows, and of those that are shifted
    lines: what stands below; macs, params: its share of the network's
    """

    stage: StageFacts
    x: float
    y: float
    width: float
    height: float
    windows: str
    shifted: str
    lines: tuple[str, ...]
    macs: float
    params: float

    @property
    def macs_text(self) -> str:
        """Its MACs in words."""
        return f"{count_text(self.stage.cost.macs)} MACs"

    @property
    def params_text(self) -> str:
        """Its parameters in words."""
        return f"{count_text(self.stage.cost.params)} parameters"


def network_svg(spec: Spec, graph: Graph, stages: Sequence[StageFacts]) -> str:
    """The picture of a network: SVG, legible on light and on dark pages.

    graph: the spec's, before any pass; stages: its `stage_facts`
    """
    cells = _cells(spec, graph, stages)
    rows = ceil(len(cells) / IN_A_ROW)
    total = cost(spec)
    height, width = spec.input.size
    return template("network.svg.j2").render(
        width=2 * _LEFT + COLUMN * min(IN_A_ROW, len(cells)),
        height=_TOP + ROW * rows,
        left=_LEFT,
        bar=_BAR,
        title=spec.name,
        sums=f"{spec.input.channels}x{height}x{width} · {count_text(total.params)} parameters · "
        f"{count_text(total.macs)} MACs",
        cells=cells,
        arrows=_arrows(cells),
    )


def network_page(spec: Spec, graph: Graph, settled: Graph, stages: Sequence[StageFacts]) -> str:
    """A page of the picture, and below it every stage's ops, folded.

    graph: the spec's, before any pass; settled: the same after the passes, whose ops are listed
    """
    ops: dict[str, list[tuple[str, str, str]]] = {}
    for node in settled.live():
        if not isinstance(node.op, Input):
            ops.setdefault(stage_of(node.path), []).append((node.path, str(node.op), str(node.type)))
    return template("network_page.html.j2").render(
        title=spec.name,
        picture=Markup(network_svg(spec, graph, stages)),  # from a template that escapes
        source=spec.source,
        notes=graph.notes,
        stages=[(stage, ops.get(stage.name, [])) for stage in stages],
        yaml=[Markup.escape(printable(line)) for line in spec.to_yaml().splitlines()],  # whole, to be copied
        count=count_text,
    )


def network_mermaid(spec: Spec, stages: Sequence[StageFacts]) -> str:
    """The stages as a flow chart in Mermaid's language, which many pages of text draw."""
    lines = ["flowchart LR"]
    for number, stage in enumerate(stages):
        words = [stage.name, *_lines(spec, stage)]
        lines.append(f'  s{number}["{"<br/>".join(_mermaid_text(word) for word in words)}"]')
    lines += [f"  s{number} --> s{number + 1}" for number in range(len(stages) - 1)]
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    """Text inside quotes: Mermaid reads entities there, with `#` in the place of `&`."""
    return "".join(char if char.isalnum() or char in " .,-×" else f"#{ord(char)};" for char in bounded(text))


def _cells(spec: Spec, graph: Graph, stages: Sequence[StageFacts]) -> list[Cell]:
    macs = max(sum(stage.cost.macs for stage in stages), 1)
    params = max(sum(stage.cost.params for stage in stages), 1)
    windows: dict[str, list[Windows]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for node in graph.live():
        if isinstance(node.op, Attention) and isinstance(order := node.inputs[0].type.order, Windows):
            windows.setdefault(stage_of(node.path), []).append(order)
        if (size := _size_of(node)) is not None:
            sizes[stage_of(node.path)] = size
    cells = []
    for number, stage in enumerate(stages):
        x = _LEFT + COLUMN * (number % IN_A_ROW + 0.5)
        y = _TOP + ROW * (number // IN_A_ROW) + 24
        height, width = sizes[stage.name] if stage.map != "-" else (0, 0)
        scale = SIDE / max(height, width, 1)
        orders, left = windows.get(stage.name, []), x - width * scale / 2
        plain, shifted = ({_borders(one, left, y, scale) for one in orders if one.shifted == is_shifted}
                          for is_shifted in (False, True))  # fmt: skip
        cell = Cell(
            stage,
            x,
            y,
            width=width * scale,
            height=height * scale,
            windows="".join(sorted(plain)),
            shifted="".join(sorted(shifted)),
            lines=tuple(_lines(spec, stage)),
            macs=stage.cost.macs / macs,
            params=stage.cost.params / params,
        )
        cells.append(cell)
    return cells


def _size_of(node: Node) -> tuple[int, int] | None:
    order = node.type.order
    return (order.height, order.width) if order is not None else None


def _borders(order: Windows, left: float, top: float, scale: float) -> str:
    """The path of the lines between the windows of a map whose upper left corner is there."""
    path = []
    if max(order.grid) > _MOST_LINES:
        return ""
    for (side, other), window, shift, down in (
        ((order.height, order.width), order.window[0], order.shift[0], True),
        ((order.width, order.height), order.window[1], order.shift[1], False),
    ):
        for place in range(shift or window, side, window):
            if down:
                path.append(f"M{px(left)} {px(top + place * scale)}h{px(other * scale)}")
            else:
                path.append(f"M{px(left + place * scale)} {px(top)}v{px(other * scale)}")
    return "".join(path)


def _lines(spec: Spec, stage: StageFacts) -> list[str]:
    """What stands below a stage: its map and width, its blocks, how they attend."""
    lines = [f"{stage.map.replace('x', ' × ')}, {stage.dim} wide" if stage.map != "-" else f"{stage.dim} wide"]
    if stage.name.startswith("stages."):
        blocks = Counter(block.type_name for block in spec.stages[int(stage.name.split(".")[1])].blocks)
        lines.append(", ".join(f"{count} × {name}" for name, count in blocks.items()))
    many = len(stage.attention) > 2
    shown = list(stage.attention)[: 1 if many else 2]
    return lines + shown + ([f"and {len(stage.attention) - 1} other windows"] if many else [])


def _arrows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """From each stage to the next in its row."""
    return [
        {"x1": one.x + max(one.width, 24) / 2 + 5, "x2": other.x - max(other.width, 24) / 2 - 8, "y": one.y + SIDE / 2}
        for one, other in pairwise(cells)
        if one.y == other.y
    ]
