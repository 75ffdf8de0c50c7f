"""The front as a CSV file: one network a line, plain numbers, units in the names of the columns.

`confirmed` says whether a network was evaluated again because it stood on the front, `…_in_search` what had put it
there: empty where it was not. In a study of several targets the columns of a timing stand there for each:
`latency@openvino_ms`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from archdsl.latency import Timing
from archdsl.report.front_rows import FrontRow
from archdsl.study.objectives import named

_ACCURACY = ("accuracy", "accuracy_standard_error", "accuracy_sd", "accuracy_seeds", "accuracy_in_search")
_FIRST = ("name", "trial", "confirmed", *_ACCURACY)
_LAST = ("params", "macs", "tied_with", "differs", "hash", "spec")


def columns(targets: Sequence[str] = ("",)) -> tuple[str, ...]:
    """The columns of a study with targets of these labels, or with one that needs no label."""
    return (*_FIRST, *(column for target in targets for column in _timing_columns(target)), *_LAST)


def front_csv(rows: Sequence[FrontRow]) -> str:
    """The text of `front.csv`. What was not taken is empty; `spec` is the file beside it."""
    targets = list(dict.fromkeys(target for row in rows for target in row.record.taken)) or [""]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(targets), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(row) for row in rows)
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
    if record.accuracy is not None:
        cells["accuracy"] = record.accuracy.mean
        cells["accuracy_standard_error"] = record.accuracy.standard_error
        cells["accuracy_sd"] = record.accuracy.sd
        cells["accuracy_seeds"] = len(record.accuracy.seeds)
    before = record.before
    if before is not None and before.accuracy is not None:
        cells["accuracy_in_search"] = before.accuracy.mean
    for target, timing in record.taken.items():
        then = before.taken.get(target) if before is not None else None
        cells.update(zip(_timing_columns(target), _timing_cells(timing, then), strict=True))
    return cells


def _timing_columns(target: str) -> tuple[str, ...]:
    latency = named("latency", target)
    return (
        *(f"{latency}_{end}" for end in ("ms", "low_ms", "high_ms", "contended")),
        f"{latency}_in_search_ms",
        f"{named('throughput', target)}_images_per_second",
        f"{named('peak_memory', target)}_bytes",
        f"{named('energy', target)}_mj_per_image",
    )


def _timing_cells(timing: Timing, in_search: Timing | None) -> tuple[Any, ...]:
    interval = (timing.median_ms, timing.ci_low_ms, timing.ci_high_ms)
    then = None if in_search is None else in_search.median_ms
    return (
        *interval,
        timing.contended,
        then,
        timing.images_per_second,
        timing.peak_memory_bytes,
        timing.energy_mj_per_image,
    )
