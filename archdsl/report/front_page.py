"""The search as one HTML page that needs nothing else: every network on hover, the front, its history, the conditions.

The text is in `templates/front_page.html.j2`, which escapes everything; `front_plots` draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from archdsl.language import Space
from archdsl.language.text.words import number_of
from archdsl.latency import Timing
from archdsl.report.front_plots import Differs, front_plots, growth, growth_plot, script
from archdsl.report.front_rows import FrontRow
from archdsl.report.front_table import confirmed_text, value_text
from archdsl.report.stopped_early import last_epoch, stopped_early
from archdsl.report.templates import script_file, template
from archdsl.study.config import StudyConfig
from archdsl.study.front.pareto import Front
from archdsl.study.objectives import OBJECTIVES, Objective, named
from archdsl.study.record import Record


@dataclass(frozen=True)
class PageTable:
    """heads: the names of the columns; numbers: which of them are aligned to the right"""

    heads: Sequence[str]
    numbers: Sequence[bool]
    rows: Sequence[Sequence[str]]


def front_page(
    title: str, facts: Mapping[str, str], front: Front, rows: Sequence[FrontRow], records: Sequence[Record], of: Differs
) -> str:
    """The page of a search.

    facts: what to know before believing it, name -> sentence, in their order
    rows: of the front's members; records: all trials; of: what a trial's settings change in the base spec
    """
    history = growth(records, front.objectives) if len(front.objectives) > 1 else []
    return template("front_page.html.j2").render(
        title=title,
        facts=facts,
        plotly=script(),
        tables=script_file("tables.js"),
        plots=front_plots(front, {row.record.number: row.name for row in rows}, of) if rows else [],
        front=_front(rows, front.objectives),
        history=growth_plot(history) if history else None,
        stopped=_stopped(records, front.objectives, of),
        failed=_failed(records),
    )


def page_facts(space: Space, plan: StudyConfig, records: Sequence[Record]) -> dict[str, str]:
    """What to know before believing a search: what was asked, how it was looked for, and how values were taken."""
    evaluated = [record for record in records if record.state != "open" and not record.cheap]
    facts = {
        "space": f"{space.name} over {space.base.name}" + (f", {space.source}" if space.source else ""),
        "search": f"{number_of(len(evaluated), 'network')} evaluated in {number_of(len(records), 'trial')}; "
        f"sampler {plan.sampler} ({plan.why}), seed {plan.seed}",
    }
    accuracy = next((record.accuracy for record in evaluated if record.accuracy is not None), None)
    if accuracy is not None:
        seeds = f"{len(accuracy.seeds)} seed{'s' if len(accuracy.seeds) > 1 else ''}"
        facts["accuracy"] = f"top-1 on {accuracy.data} after {accuracy.epochs} epochs of {accuracy.recipe}, {seeds}"
    stopping = stopped_early(records)
    if stopping is not None:
        facts["early stopping"] = str(stopping)
    for target in dict.fromkeys(target for record in evaluated for target in record.timing_by_target):
        timings = [record.timing_by_target[target] for record in evaluated if target in record.timing_by_target]
        facts[named("latency", target)] = _taken(timings)
        counters = dict.fromkeys(timing.energy_note for timing in timings if timing.energy_mj_per_image is not None)
        if counters:
            facts[named("energy", target)] = f"of the whole device for one image, by {'; '.join(counters)}"
    return facts


def _taken(timings: Sequence[Timing]) -> str:
    """How latencies on one target were taken."""
    first = timings[0]
    contended = sum(timing.contended for timing in timings)
    facts = [
        f"measured with {first.runtime} {first.runtime_version} on {first.device_name}",
        f"{first.precision}, batch {first.batch}, {first.threads} thread{'s' if first.threads > 1 else ''}",
        f"clock {first.clock_state}",
    ]
    if contended:
        facts.append(f"{contended} of {len(timings)} contended (other processes used the same cores)")
    return ", ".join(facts)


def _front(rows: Sequence[FrontRow], objectives: Sequence[Objective]) -> PageTable:
    counts = {name: objective for name, objective in OBJECTIVES.items() if name in ("params", "macs")}
    shown = list({**{objective.name: objective for objective in objectives}, **counts}.values())
    heads = ["network", *(objective.name for objective in shown), "differs from the base in", "indistinguishable from"]
    confirmed = any(row.record.is_confirmed for row in rows)
    heads += ["confirmed"] if confirmed else []
    lines = []
    for row in rows:
        cells = [row.name, *(value_text(row.record, objective) for objective in shown)]
        cells += [row.differs or "nothing", ", ".join(row.tied_with) or "–"]
        lines.append(cells + ([confirmed_text(row.record, objectives)] if confirmed else []))
    return PageTable(heads, [False, *(True for _ in shown), False, False, False], lines)


def _stopped(records: Sequence[Record], objectives: Sequence[Objective], of: Differs) -> PageTable:
    """The trainings that early stopping ended, with the values of the epoch after which it did."""
    stopping = stopped_early(records)
    heads = ["trial", "network", "after epoch", *(objective.name for objective in objectives)]
    lines = [
        [
            *(str(record.number), record.name or "–", str(last_epoch(record))),
            *(value_text(record, objective) for objective in objectives),
            of(record) or "nothing",
        ]
        for record in (stopping.stopped if stopping is not None else ())
    ]
    numbers = [True, False, True, *(True for _ in objectives), False]
    return PageTable([*heads, "differs from the base in"], numbers, lines)


def _failed(records: Iterable[Record]) -> PageTable:
    """The trials that gave no value, each with its reason."""
    failed = [record for record in records if record.state == "failed" and record.duplicate_of is None]
    lines = [[str(one.number), one.name or "–", one.rule or "–", one.reason or "–"] for one in failed]
    return PageTable(["trial", "network", "rule", "what happened"], [True, False, False, False], lines)
