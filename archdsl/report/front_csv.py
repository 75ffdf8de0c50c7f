"""The front as a CSV file: one network a line, plain numbers, units in the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from archdsl.report.front_rows import FrontRow

COLUMNS = (
    "name",
    "trial",
    "accuracy",
    "accuracy_standard_error",
    "accuracy_sd",
    "accuracy_seeds",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_contended",
    "params",
    "macs",
    "tied_with",
    "differs",
    "hash",
    "spec",
)


def front_csv(rows: Sequence[FrontRow]) -> str:
    """The text of `front.csv`. What was not taken is empty; `spec` is the file beside it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(row) for row in rows)
    return text.getvalue()


def _cells(row: FrontRow) -> dict[str, Any]:
    record = row.record
    cells: dict[str, Any] = {
        "name": row.name,
        "trial": record.number,
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
    if record.timing is not None:
        cells["latency_ms"] = record.timing.median_ms
        cells["latency_low_ms"], cells["latency_high_ms"] = record.timing.ci_low_ms, record.timing.ci_high_ms
        cells["latency_contended"] = record.timing.contended
    return cells
