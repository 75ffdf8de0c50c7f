"""The search as one HTML page that needs nothing else: every network on hover, the front, its history, the conditions.

plotly draws; its script (5 MB) is in the page, so that it opens without a network and years from now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from archdsl.latency import Timing
from archdsl.report.front_rows import FrontRow
from archdsl.report.front_table import confirmed_text, count_text, value_text
from archdsl.report.stopped_early import last_epoch, stopped_early
from archdsl.spec import Space
from archdsl.study.front import Front, Point
from archdsl.study.hypervolume import volumes
from archdsl.study.objectives import OBJECTIVES, Objective, named
from archdsl.study.plan import Plan
from archdsl.study.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Differs = Callable[[Record], str]
"""From a trial to what its settings change in the base spec."""

_BLUE, _GREY = "#0969da", "#9198a1"
_LONGEST = 300
_STYLE = """
  :root { color-scheme: light }
  body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1f2328; background: #fff;
         max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
  h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
  table { border-collapse: collapse; font-size: 14px; width: 100% }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d1d9e0; vertical-align: top }
  td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
  .soft { color: #59636e } .scroll { overflow-x: auto } .plot { height: 480px } .small { height: 280px }"""


def front_page(
    title: str, facts: Mapping[str, str], front: Front, rows: Sequence[FrontRow], records: Sequence[Record], of: Differs
) -> str:
    """The page of a search.

    facts: what to know before believing it, name -> sentence, in their order
    rows: of the front's members; records: all trials; of: what a trial's settings change in the base spec
    """
    from plotly.offline import get_plotlyjs

    names = {row.record.number: row.name for row in rows}
    plots = [
        _plot(_scatter(front, across, names, of), f"front-{index}", "plot")
        for index, across in enumerate(front.objectives[1:])
        if rows
    ]
    history = growth(records, front.objectives) if len(front.objectives) > 1 else []
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}\n</style>",
        f"<script>{get_plotlyjs()}</script></head><body>",
        f"<h1>{_text(title)}</h1>",
        *_facts(facts),
        f"<h2>The front: {len(front.members)} networks that no other beats in every objective</h2>" if rows else "",
        '<p class="soft">Point at a network to see what it changes in the base spec. Bars: 95 % intervals.</p>'
        if plots
        else "",
        *plots,
        _table(rows, front.objectives) if rows else "<p>No network was finished that keeps to the constraints.</p>",
        *_growth(history),
        *_stopped(records, front.objectives, of),
        *_failures(records),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def page_facts(space: Space, plan: Plan, records: Sequence[Record]) -> dict[str, str]:
    """What to know before believing a search: what was asked, how it was looked for, and how values were taken."""
    paid = [record for record in records if record.state != "open" and not record.cheap]
    facts = {
        "space": f"{space.name} over {space.base.name}" + (f", {space.source}" if space.source else ""),
        "search": f"{len(paid)} networks paid for of {len(records)} trials; sampler {plan.sampler} ({plan.why}), "
        f"seed {plan.seed}",
    }
    accuracy = next((record.accuracy for record in paid if record.accuracy is not None), None)
    if accuracy is not None:
        seeds = f"{len(accuracy.seeds)} seed{'s' if len(accuracy.seeds) > 1 else ''}"
        facts["accuracy"] = f"top-1 on {accuracy.data} after {accuracy.epochs} epochs of {accuracy.recipe}, {seeds}"
    stopping = stopped_early(records)
    if stopping is not None:
        facts["early stopping"] = str(stopping)
    for target in dict.fromkeys(target for record in paid for target in record.taken):
        timings = [record.taken[target] for record in paid if target in record.taken]
        facts[named("latency", target)] = _taken(timings)
        counters = dict.fromkeys(timing.energy_note for timing in timings if timing.energy_mj_per_image is not None)
        if counters:
            facts[named("energy", target)] = f"of the whole device for one image, by {'; '.join(counters)}"
    return facts


def _taken(timings: Sequence[Timing]) -> str:
    """How latencies on one target were taken."""
    first = timings[0]
    contended = sum(timing.contended for timing in timings)
    told = [
        f"measured with {first.runtime} {first.runtime_version} on {first.device_name}",
        f"{first.precision}, batch {first.batch}, {first.threads} thread{'s' if first.threads > 1 else ''}",
        f"clock {first.clock_state}",
    ]
    if contended:
        told.append(f"{contended} of {len(timings)} while others used our cores")
    return ", ".join(told)


def growth(records: Iterable[Record], objectives: Sequence[Objective]) -> list[tuple[int, float]]:
    """(networks paid for, share of the final hypervolume) after each; empty where nothing has grown."""
    found = volumes(records, objectives)
    return [(paid, volume / found[-1]) for paid, volume in enumerate(found, 1)] if found and found[-1] > 0 else []


def _scatter(front: Front, across: Objective, names: Mapping[int, str], of: Differs) -> Figure:
    """The first objective up, `across` across; what hover says is text, never markup."""
    import plotly.graph_objects as go

    up, index = front.objectives[0], front.objectives.index(across)
    members = sorted((member.point for member in front.members), key=lambda point: point.values[index])
    groups = (
        ("beaten", front.others, {"color": _GREY, "size": 8, "opacity": 0.7}, False),
        (
            "beaten, but within the noise",
            front.contenders,
            {"color": "#fff", "size": 9, "line": {"color": _BLUE, "width": 1.5}},
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
        margin={"l": 70, "r": 20, "t": 30, "b": 60},
        xaxis={"title": {"text": _text(across.title)}, "showgrid": True},
        yaxis={"title": {"text": _text(up.title)}, "showgrid": True},
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
        reach = f" [{_number(low)}, {_number(high)}]" if low < high else ""
        lines.append(f"{_text(objective.name)}: {_number(value)}{_text(f' {objective.unit}'.rstrip())}{reach}")
    changes = of(record)
    lines += [f"  {_text(change)}" for change in changes.split(", ")] if changes else ["as the base spec"]
    return "<br>".join(lines)


def _growth(history: Sequence[tuple[int, float]]) -> list[str]:
    if not history:
        return []
    head = "<h2>How the front grew: its hypervolume by the values of the search, as a share of the last</h2>"
    return [head, _plot(_steps(history), "history", "small")]


def _steps(history: Sequence[tuple[int, float]]) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Scatter(
            x=[paid for paid, _ in history],
            y=[share for _, share in history],
            mode="lines",
            line={"shape": "hv", "color": _BLUE},
            hovertemplate="after %{x} networks: %{y:.1%}<extra></extra>",
        )
    )
    figure.update_layout(
        template="simple_white",
        margin={"l": 70, "r": 20, "t": 10, "b": 50},
        xaxis={"title": {"text": "networks paid for"}, "showgrid": True},
        yaxis={"range": [0, 1.02], "tickformat": ".0%", "showgrid": True},
    )
    return figure


def _plot(figure: Figure, name: str, kind: str) -> str:
    """A figure as a part of the page, under a fixed name, so that equal searches give equal pages."""
    from plotly.io import to_html

    body: str = to_html(
        figure, include_plotlyjs=False, full_html=False, div_id=name, config={"displaylogo": False, "responsive": True}
    )
    return f'<div class="{kind}">{body}</div>'


def _facts(facts: Mapping[str, str]) -> list[str]:
    lines = [f"<tr><th>{_text(name)}</th><td>{_text(sentence)}</td></tr>" for name, sentence in facts.items()]
    return ["<table>", *lines, "</table>"] if lines else []


def _table(rows: Sequence[FrontRow], objectives: Sequence[Objective]) -> str:
    counts = {name: objective for name, objective in OBJECTIVES.items() if name in ("params", "macs")}
    shown = list({**{objective.name: objective for objective in objectives}, **counts}.values())
    heads = ["network", *(objective.name for objective in shown), "differs from the base in", "cannot be told from"]
    confirmed = any(row.record.is_confirmed for row in rows)
    heads += ["confirmed"] if confirmed else []
    number = [False, *(True for _ in shown), False, False, False][: len(heads)]
    lines = [_line(heads, number, "th")]
    for row in rows:
        cells = [row.name, *(value_text(row.record, objective) for objective in shown)]
        cells += [row.differs or "nothing", ", ".join(row.tied_with) or "–"]
        cells += [confirmed_text(row.record, objectives)] if confirmed else []
        lines.append(_line(cells, number))
    return '<div class="scroll"><table>' + "\n".join(lines) + "</table></div>"


def _stopped(records: Sequence[Record], objectives: Sequence[Objective], of: Differs) -> list[str]:
    """The trainings that were ended before their time, with what was known about them by then."""
    stopping = stopped_early(records)
    if stopping is None or not stopping.stopped:
        return []
    heads = ["trial", "network", "after epoch", *(objective.name for objective in objectives)]
    number = [True, False, True, *(True for _ in objectives), False]
    lines = [_line([*heads, "differs from the base in"], number, "th")]
    for record in stopping.stopped:
        cells = [str(record.number), record.name or "–", str(last_epoch(record))]
        cells += [*(value_text(record, objective) for objective in objectives), of(record) or "nothing"]
        lines.append(_line(cells, number))
    return [
        f"<h2>{len(stopping.stopped)} stopped early</h2>",
        '<p class="soft">They were behind others when they were looked at; their accuracies are those of that epoch, '
        "in the middle of the schedule.</p>",
        '<div class="scroll"><table>' + "\n".join(lines) + "</table></div>",
    ]


def _failures(records: Sequence[Record]) -> list[str]:
    """What was paid for or tried and gave no value: nothing is kept quiet about."""
    failed = [record for record in records if record.state == "failed" and record.duplicate_of is None]
    if not failed:
        return []
    lines = [
        f"<tr>{_cell(str(record.number), True)}{_cell(record.name or '–')}{_cell(record.rule or '–')}"
        f"{_cell(record.reason or '–')}</tr>"
        for record in failed
    ]
    return [
        f"<h2>{len(failed)} failed</h2>",
        f'<div class="scroll"><table><tr>{_cell("trial", True, "th")}{_cell("network", False, "th")}'
        f"{_cell('rule', False, 'th')}{_cell('what happened', False, 'th')}</tr>",
        *lines,
        "</table></div>",
    ]


def _line(cells: Sequence[str], numbers: Sequence[bool], tag: str = "td") -> str:
    return "<tr>" + "".join(_cell(cell, number, tag) for cell, number in zip(cells, numbers, strict=True)) + "</tr>"


def _cell(text: str, number: bool = False, tag: str = "td") -> str:
    kind = ' class="number"' if number else ""
    return f"<{tag}{kind}>{_text(text)}</{tag}>"


def _number(value: float) -> str:
    return count_text(value) if abs(value) >= 10_000 else f"{value:.4g}"


def _text(text: str) -> str:
    """Text for HTML and for plotly's labels, which know a little markup: escaped, printable, not endless."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return escape(plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…")
