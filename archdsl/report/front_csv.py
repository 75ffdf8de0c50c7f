"""The front as a CSV file: one network a line, plain numbers, units in the names of the columns.

`confirmed` says whether a network was re-evaluated because it was on the front; `…_in_search` are the values that the
search had found, empty where it was not. In a study of several targets the columns of a timing stand there for each:
`latency@openvino_ms`. An estimated latency, where a study has one, is in a column of its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from archdsl.latency import Timing
from archdsl.outside_text import spreadsheet_cell
from archdsl.report.front_rows import FrontRow
from archdsl.study.objectives import named

_ACCURACY = ("accuracy", "accuracy_standard_error", "accuracy_sd", "accuracy_seeds", "accuracy_in_search")
_FIRST = ("name", "trial", "confirmed", *_ACCURACY)
_OF_TIMING: dict[str, Callable[[Timing, Timing | None], Any]] = {
    "latency{at}_ms": lambda now, then: now.median_ms,
    "latency{at}_low_ms": lambda now, then: now.ci_low_ms,
    "latency{at}_high_ms": lambda now, then: now.ci_high_ms,
    "latency{at}_contended": lambda now, then: now.contended,
    "latency{at}_in_search_ms": lambda now, then: then and then.median_ms,
    "throughput{at}_images_per_second": lambda now, then: now.images_per_second,
    "peak_memory{at}_bytes": lambda now, then: now.peak_memory_bytes,
    "energy{at}_mj_per_image": lambda now, then: now.energy_mj_per_image,
}
"""Columns of a timing, from it and from the one that a confirmed network had in the search; at: `@label`, or ''."""
_LAST = ("params", "macs", "tied_with", "differs", "hash", "spec")


ESTIMATE = "latency_estimate_ms"
"""The last column, where latencies were estimated and not measured."""


def columns(targets: Sequence[str] = ("",)) -> tuple[str, ...]:
    """The columns of a study with targets of these labels, or with one that needs no label."""
    return (*_FIRST, *(column.format(at=named("", target)) for target in targets for column in _OF_TIMING), *_LAST)


def front_csv(rows: Sequence[FrontRow]) -> str:
    """The text of `front.csv`. What was not taken is empty; `spec` is the file beside it."""
    targets = list(dict.fromkeys(target for row in rows for target in row.record.timing_by_target)) or [""]
    text = io.StringIO()
    estimated = any(row.record.latency_estimate is not None for row in rows)
    heads = [*columns(targets), *([ESTIMATE] if estimated else [])]
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet_cell(cell) for name, cell in _cells(row).items()} for row in rows)
    return text.getvalue()


def _cells(row: FrontRow) -> dict[str, Any]:
    record = row.record
    cells: dict[str, Any] = {
        "name": row.name,
        "trial": record.number,
        "confirmed": record.is_confirmed,
        "params": record.params,
        "macs": record.macs,
        "tied_with": " ".join(row.tied_with),
        "differs": row.differs,
        "hash": record.hash,
        "spec": f"front/{row.name}.yaml",
    }
    if record.latency_estimate is not None:
        cells[ESTIMATE] = record.latency_estimate
    if record.accuracy is not None:
        cells["accuracy"] = record.accuracy.mean
        cells["accuracy_standard_error"] = record.accuracy.standard_error
        cells["accuracy_sd"] = record.accuracy.sd
        cells["accuracy_seeds"] = len(record.accuracy.seeds)
    before = record.before
    if before is not None and before.accuracy is not None:
        cells["accuracy_in_search"] = before.accuracy.mean
    for target, timing in record.timing_by_target.items():
        then = before.timing_by_target.get(target) if before is not None else None
        cells |= {column.format(at=named("", target)): cell(timing, then) for column, cell in _OF_TIMING.items()}
    return cells
