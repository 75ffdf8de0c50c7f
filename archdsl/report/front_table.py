"""The front as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from archdsl.report.front_rows import FrontRow
from archdsl.study.record import Record
from archdsl.training import Accuracy

CONTENDED = "*"
"""Behind a latency that was taken while others used our cores."""


def front_table(rows: Sequence[FrontRow], title: str) -> Table:
    """accuracy ± one standard error (over seeds and validation images), latency ± the half interval, counts."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    ties = any(row.tied_with for row in rows)
    table.add_column("network", overflow="fold")
    for name in ("accuracy", "latency", "params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("differs from the base in", overflow="fold", min_width=28)
    if ties:
        table.add_column("cannot be told from", overflow="fold")
    for row in rows:
        record = row.record
        cells = [row.name, accuracy_text(record.accuracy), latency_text(record), count_text(record.params)]
        cells += [count_text(record.macs), row.differs or "nothing"]
        table.add_row(*(Text(cell) for cell in cells), *([Text(", ".join(row.tied_with))] if ties else []))
    if any(row.record.timing is not None and row.record.timing.contended for row in rows):
        table.caption = f"{CONTENDED} others used our cores while it was timed"
        table.caption_justify = "left"
    return table


def accuracy_text(accuracy: Accuracy | None) -> str:
    """`0.976 ± 0.009`: the mean over seeds and one standard error."""
    return "–" if accuracy is None else f"{accuracy.mean:.3f} ± {accuracy.standard_error:.3f}"


def latency_text(record: Record) -> str:
    """`0.21 ms ± 0.02`, with a mark when others used our cores meanwhile."""
    if record.timing is None:
        return "–"
    return str(record.timing).replace(" (contended)", CONTENDED)


def count_text(count: float | None) -> str:
    """28288354 -> `28.29M`."""
    if count is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.2f}{unit}"
    return f"{count:g}"
