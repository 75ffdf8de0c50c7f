"""The front as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from archdsl.latency import Timing
from archdsl.report.front_rows import FrontRow
from archdsl.study.front import moved
from archdsl.study.objectives import Objective, named, objective_named
from archdsl.study.record import Record
from archdsl.training import Accuracy

CONTENDED = "*"
"""Behind a latency that was taken while others used our cores."""


def front_table(rows: Sequence[FrontRow], title: str, objectives: Sequence[Objective] = ()) -> Table:
    """accuracy ± one standard error (over seeds and validation images), latency ± the half interval on each target,
    counts; whatever else of `objectives` there is; and whether that is confirmed, where anything is."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    ties = any(row.tied_with for row in rows)
    table.add_column("network", overflow="fold")
    names = [named("latency", target) for target in dict.fromkeys(t for row in rows for t in row.record.taken)]
    names = ["accuracy", *(names or ["latency"])]
    names += [objective.name for objective in objectives if objective.kind in ("throughput", "peak_memory", "energy")]
    for name in (*names, "params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("differs from the base in", overflow="fold", min_width=28)
    if ties:
        table.add_column("cannot be told from", overflow="fold")
    confirmed = any(row.record.is_confirmed for row in rows)
    if confirmed:
        table.add_column("confirmed", overflow="fold")
    for row in rows:
        record = row.record
        cells = [row.name, *(value_text(record, objective_named(name)) for name in names), count_text(record.params)]
        cells += [count_text(record.macs), row.differs or "nothing"]
        cells += [", ".join(row.tied_with)] if ties else []
        cells += [confirmed_text(record, objectives)] if confirmed else []
        table.add_row(*(Text(cell) for cell in cells))
    if any(timing.contended for row in rows for timing in row.record.taken.values()):
        table.caption = f"{CONTENDED} others used our cores while it was timed"
        table.caption_justify = "left"
    return table


def accuracy_text(accuracy: Accuracy | None) -> str:
    """`0.976 ± 0.009`: the mean over seeds and one standard error."""
    return "–" if accuracy is None else f"{accuracy.mean:.3f} ± {accuracy.standard_error:.3f}"


def value_text(record: Record, objective: Objective) -> str:
    """What a record says about an objective, with its unit; a dash where it says nothing."""
    timing = record.taken.get(objective.target)
    match objective.kind:
        case "accuracy":
            return accuracy_text(record.accuracy)
        case "latency":
            return _timing_text(timing)
        case "throughput":
            return "–" if timing is None else f"{timing.images_per_second:.4g} images/s"
        case "peak_memory":
            return "–" if timing is None else size_text(timing.peak_memory_bytes)
        case "energy":
            return "–" if timing is None else energy_text(timing.energy_mj_per_image, timing.energy_plus_minus_mj)
    return count_text(getattr(record, objective.kind))


def confirmed_text(record: Record, objectives: Sequence[Objective]) -> str:
    """`yes`; `no`; or, where they differ beyond noise, `yes; in the search accuracy 0.912 ± 0.010`."""
    if record.before is None:
        return "no"
    then = [f"{one.name} {value_text(record.before, one)}" for one in moved(record, objectives)]
    return f"yes; in the search {', '.join(then)}" if then else "yes"


def latency_text(record: Record) -> str:
    """`0.21 ms ± 0.02`, with a mark when others used our cores meanwhile; with several targets all of them."""
    shown = [f"{target} {_timing_text(timing)}".strip() for target, timing in record.taken.items()]
    return ", ".join(shown) or "–"


def _timing_text(timing: Timing | None) -> str:
    return "–" if timing is None else str(timing).replace(" (contended)", CONTENDED)


def size_text(size: int | None) -> str:
    """536870912 -> `512 MiB`."""
    if size is None:
        return "–"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 100 * unit else f"{size / unit:.0f} {name}"
    return f"{size} B"


def energy_text(mj: float | None, plus_minus_mj: float | None = None) -> str:
    """12.34 and 0.2 -> `12.3 mJ ± 0.2`: of one image, with half its 95 % interval."""
    if mj is None:
        return "–"
    reach = "" if plus_minus_mj is None else f" ± {plus_minus_mj:.2g}"
    return f"{mj:.3g} mJ{reach}" if mj < 1000 else f"{mj:.0f} mJ{reach}"


def count_text(count: float | None) -> str:
    """28288354 -> `28.29M`."""
    if count is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.2f}{unit}"
    return f"{count:g}"
