"""The front as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from archdsl.language.space.objectives import MEASURED
from archdsl.language.text.quantities import count_text, energy_text, size_text
from archdsl.report.front_rows import FrontRow
from archdsl.report.terminal_table import TerminalTable
from archdsl.study.front.pareto import moved
from archdsl.study.objectives import Objective, named, objective_named
from archdsl.study.record import Record
from archdsl.training import Accuracy

CONTENDED = "*"
"""Marks a latency that was measured while other processes used the same cores (contention)."""
_DIFFERS, _TIED, _CONFIRMED = "differs from the base in", "indistinguishable from", "confirmed"


def front_table(rows: Sequence[FrontRow], title: str, objectives: Sequence[Objective] = ()) -> TerminalTable:
    """accuracy ± one standard error (over seeds and validation images), latency ± the half interval on each target,
    counts; whatever else of `objectives` there is; and whether that is confirmed, where anything is."""
    names = [
        named("latency", target) for target in dict.fromkeys(t for row in rows for t in row.record.timing_by_target)
    ]
    estimated = any(row.record.latency_estimate is not None for row in rows)
    names = ["accuracy", *(names or ([] if estimated else ["latency"])), *(["latency_estimate"] if estimated else [])]
    names += [objective.name for objective in objectives if objective.kind in ("throughput", "peak_memory", "energy")]
    ties = any(row.tied_with for row in rows)
    confirmed = any(row.record.is_confirmed for row in rows)
    prose = [_DIFFERS, *([_TIED] if ties else []), *([_CONFIRMED] if confirmed else [])]
    cells = []
    for row in rows:
        record = row.record
        line = [row.name, *(value_text(record, objective_named(name)) for name in names), count_text(record.params)]
        line += [count_text(record.macs), row.differs or "nothing"]
        line += [", ".join(row.tied_with)] if ties else []
        line += [confirmed_text(record, objectives)] if confirmed else []
        cells.append(line)
    contended = any(timing.contended for row in rows for timing in row.record.timing_by_target.values())
    numbers = (*names, "params", "MACs")
    return TerminalTable(
        ("network", *numbers, *prose),
        cells,
        right=numbers,
        prose=prose,
        common=(_CONFIRMED,),
        optional=("MACs", "params", _TIED),
        title=title,
        caption=f"{CONTENDED} other processes used the same cores while it was timed" if contended else None,
    )


def accuracy_text(accuracy: Accuracy | None) -> str:
    """`0.976 ± 0.009`: the mean over seeds and one standard error."""
    return "–" if accuracy is None else f"{accuracy.mean:.3f} ± {accuracy.standard_error:.3f}"


def value_text(record: Record, objective: Objective) -> str:
    """What a record says about an objective, with its unit; a dash where it says nothing."""
    if objective.kind == "accuracy":
        return accuracy_text(record.accuracy)
    if objective.kind == "latency_estimate":
        return "–" if record.latency_estimate is None else f"{record.latency_estimate:.3f} ms, not measured"
    if objective.kind not in MEASURED:
        return count_text(getattr(record, objective.kind))
    timing = record.timing_by_target.get(objective.target)
    if timing is None:
        return "–"
    match objective.kind:
        case "throughput":
            return f"{timing.images_per_second:.4g} images/s"
        case "peak_memory":
            return size_text(timing.peak_memory_bytes)
        case "energy":
            return energy_text(timing.energy_mj_per_image, timing.energy_plus_minus_mj)
    return str(timing).replace(" (contended)", CONTENDED)


def confirmed_text(record: Record, objectives: Sequence[Objective]) -> str:
    """`yes`; `no`; or, where they differ beyond noise, `yes; in the search accuracy 0.912 ± 0.010`."""
    if record.before is None:
        return "no"
    then = [f"{one.name} {value_text(record.before, one)}" for one in moved(record, objectives)]
    return f"yes; in the search {', '.join(then)}" if then else "yes"
