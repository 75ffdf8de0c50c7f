"""The networks of a comparison as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.language.text.quantities import count_text, energy_text, size_text
from archdsl.report.terminal_table import TerminalTable

_LEFT = ("spec", "runtime", "precision", "notes")
_HEADS = ("spec", "runtime", "precision", "batch", "latency", "p95", "{ratio}", "images/s", "memory")
_ENERGY, _LAST = "energy/image", ("MACs", "notes")
_COMMON = ("runtime", "precision", "batch")
_OPTIONAL = ("p95", "MACs", "memory", "images/s", _ENERGY)


def bench_table(rows: Sequence[Mapping[str, Any]]) -> TerminalTable:
    """Latency ± 95 %, ratio with its 99 % interval and verdict; notes have a mark, see `footnotes`.

    Energy per image has a column where a device has a counter of it.

    rows: as `archdsl bench --json` prints its results
    """
    firsts = {row["ratio_to"] for row in rows}
    head = f"ratio to {firsts.pop()}" if len(firsts) == 1 else "ratio"
    has_energy = any(row["energy_mj_per_image"] is not None for row in rows)
    heads = [name.format(ratio=head) for name in (*_HEADS, *((_ENERGY,) if has_energy else ()), *_LAST)]
    cells = []
    marks = {note: mark for mark, note in footnotes(rows).items()}
    for row in rows:
        device = row["target"]["device"]
        cells.append(
            [
                row["spec"],
                row["target"]["runtime"] + ("" if device == "cpu" else f" on {device}"),
                row["target"]["precision"],
                str(row["batch"]),
                row["shown"].replace(" (contended)", ""),
                f"{row['p95_ms']:.4g} ms",
                _ratio(row) + ("" if head != "ratio" else f" than {row['ratio_to']}"),
                f"{row['images_per_second']:.1f}",
                size_text(row["peak_memory_bytes"]),
                *((energy_text(row["energy_mj_per_image"], row["energy_plus_minus_mj"]),) if has_energy else ()),
                count_text(row["macs"]),
                " ".join(marks[note] for note in row["notes"]),
            ]
        )
    right = [name for name in heads if name not in _LEFT]
    return TerminalTable(heads, cells, right, common=_COMMON, optional=_OPTIONAL)


def footnotes(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Mark -> note, each note once: `[1]`, `[2]`, …"""
    notes = dict.fromkeys(note for row in rows for note in row["notes"])
    return {f"[{number}]": note for number, note in enumerate(notes, 1)}


def _ratio(row: Mapping[str, Any]) -> str:
    """`0.52 [0.50, 0.54] faster`; `same` is said where the interval holds 1."""
    if row["ratio_low"] == row["ratio_high"]:
        return f"{row['ratio']:.3f} {row['verdict']}"
    return f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}] {row['verdict']}"
