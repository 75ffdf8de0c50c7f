"""The figures of a search's page, by plotly: each further objective against the first, and how the front grew.

plotly's labels know a little markup, so every text in them is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from archdsl.language.text.quantities import number_text
from archdsl.report.templates import bounded
from archdsl.study.front.pareto import Front, Point
from archdsl.study.hypervolume import hypervolume_history
from archdsl.study.objectives import Objective
from archdsl.study.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Differs = Callable[[Record], str]
"""From a trial to what its settings change in the base spec."""

_BLUE, _GREY, _SOFT = "#1f7ae0", "#9198a1", "#717b86"
_ON_ANY_PAGE: dict[str, Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": _SOFT},
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": _SOFT, "activecolor": _BLUE},
}
"""Nothing behind a figure, and letters that are legible on light and on dark pages."""
_AXIS: dict[str, Any] = {"gridcolor": "rgba(128,128,128,0.25)", "linecolor": _SOFT, "tickcolor": _SOFT}


def script() -> Markup:
    """plotly itself, 5 MB, so that a page needs nothing else."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def front_plots(front: Front, names: Mapping[int, str], of: Differs) -> list[Markup]:
    """For each objective but the first: the first against it.

    names: of the front's members, by trial number; of: what a trial's settings change in the base spec
    """
    return [
        _html(_scatter(front, across, names, of), f"front-{index}") for index, across in enumerate(front.objectives[1:])
    ]


def growth_plot(history: Sequence[tuple[int, float]]) -> Markup:
    """The share of the final hypervolume after each network; see `growth`."""
    return _html(_steps(history), "history")


def growth(records: Iterable[Record], objectives: Sequence[Objective]) -> list[tuple[int, float]]:
    """(networks evaluated, share of the final hypervolume) after each; empty where nothing has grown."""
    found = hypervolume_history(records, objectives)
    return [(number, volume / found[-1]) for number, volume in enumerate(found, 1)] if found and found[-1] > 0 else []


def _scatter(front: Front, across: Objective, names: Mapping[int, str], of: Differs) -> Figure:
    """The first objective up, `across` across; what hover says is text, never markup."""
    import plotly.graph_objects as go

    up, index = front.objectives[0], front.objectives.index(across)
    members = sorted((member.point for member in front.members), key=lambda point: point.values[index])
    groups = (
        ("dominated", front.others, {"color": _GREY, "size": 8, "opacity": 0.7}, False),
        (
            "dominated, but within the noise",
            front.contenders,
            {"color": "rgba(0,0,0,0)", "size": 9, "line": {"color": _BLUE, "width": 1.5}},
            False,
        ),
        ("front", members, {"color": _BLUE, "size": 11}, True),
    )
    figure = go.Figure()
    for name, points, marker, bars in groups:
        if not points:
            continue
        figure.add_scatter(
            name=name,
            mode="markers",
            x=[point.values[index] for point in points],
            y=[point.values[0] for point in points],
            error_x=_bars(points, index) if bars else None,
            error_y=_bars(points, 0) if bars else None,
            marker=marker,
            text=[_hover(point, front.objectives, names, of) for point in points],
            hoverinfo="text",
        )
    figure.update_layout(
        template="simple_white",
        **_ON_ANY_PAGE,
        margin={"l": 70, "r": 20, "t": 30, "b": 60},
        xaxis={"title": {"text": _text(across.title)}, "showgrid": True, **_AXIS},
        yaxis={"title": {"text": _text(up.title)}, "showgrid": True, **_AXIS},
        legend={"orientation": "h", "y": 1.08},
        hoverlabel={"align": "left"},
    )
    return figure


def _bars(points: Sequence[Point], index: int) -> dict[str, Any]:
    """Error bars from each point's interval in one objective."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [point.intervals[index][1] - point.values[index] for point in points],
        "arrayminus": [point.values[index] - point.intervals[index][0] for point in points],
        "color": _BLUE,
        "thickness": 1.2,
        "width": 3,
    }


def _hover(point: Point, objectives: Sequence[Objective], names: Mapping[int, str], of: Differs) -> str:
    record = point.record
    name = names.get(record.number) or record.name or f"trial {record.number}"
    lines = [f"<b>{_text(name)}</b> (trial {record.number})"]
    for objective, value, (low, high) in zip(objectives, point.values, point.intervals, strict=True):
        reach = f" [{number_text(low)}, {number_text(high)}]" if low < high else ""
        lines.append(f"{_text(objective.name)}: {number_text(value)}{_text(f' {objective.unit}'.rstrip())}{reach}")
    changes = of(record)
    lines += [f"  {_text(change)}" for change in changes.split(", ")] if changes else ["as the base spec"]
    return "<br>".join(lines)


def _steps(history: Sequence[tuple[int, float]]) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Scatter(
            x=[number for number, _ in history],
            y=[share for _, share in history],
            mode="lines",
            line={"shape": "hv", "color": _BLUE},
            hovertemplate="after %{x} networks: %{y:.1%}<extra></extra>",
        )
    )
    figure.update_layout(
        template="simple_white",
        **_ON_ANY_PAGE,
        margin={"l": 70, "r": 20, "t": 10, "b": 50},
        xaxis={"title": {"text": "networks evaluated"}, "showgrid": True, **_AXIS},
        yaxis={"range": [0, 1.02], "tickformat": ".0%", "showgrid": True, **_AXIS},
    )
    return figure


def _html(figure: Figure, name: str) -> Markup:
    """A figure as a part of the page, under a fixed name, so that equal searches give equal pages."""
    from plotly.io import to_html

    config = {"displaylogo": False, "responsive": True}
    return Markup(to_html(figure, include_plotlyjs=False, full_html=False, div_id=name, config=config))


def _text(text: str) -> str:
    """Text for plotly's labels."""
    return escape(bounded(text))
