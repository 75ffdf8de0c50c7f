"""`archdsl profile … --on tensorrt-rtx:sm86`: what the engine for a GPU that is not here does, and what it may take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.backends.precision import precision_named
from archdsl.cli.output import print_table, say
from archdsl.errors import ArchError
from archdsl.ir.paths import stage_of
from archdsl.language.architecture.model import Spec
from archdsl.latency.engine.compile import compile_engine
from archdsl.latency.engine.report import NOT_VALIDATED, EngineLayer, EngineReport, moves_by_line
from archdsl.runtimes.onnx_files import OnnxNetwork
from archdsl.runtimes.target import Target
from archdsl.runtimes.timm_models import FAIRNESS, TimmNetwork, reference_network

if TYPE_CHECKING:
    from archdsl.report.terminal_table import Cell

MOST_LINES = 6
"""Lines of a spec that are named for the data they move."""

GROUPS: dict[str, Callable[[EngineLayer], str]] = {
    "kind": lambda layer: layer.work,
    "op": lambda layer: f"{layer.work}: {layer.type}",
    "stage": lambda layer: stage_of(layer.path) if layer.path else "named by no node",
    "node": lambda layer: layer.path or "named by no node",
}
"""What a kernel is counted under, by the words of `--by`."""


@dataclass(frozen=True)
class EngineProfile:
    """The engine of one network for one target. form: of its graph; `file` of a network that was not ours to rewrite"""

    target: Target
    form: str
    report: EngineReport

    def as_json(self) -> dict[str, Any]:
        """The facts as plain data."""
        facts = self.report.as_json()
        return {"spec": self.report.network, "form": self.form, "target": self.target.as_json(), **facts}


def engine_profiles(
    networks: Sequence[Spec | OnnxNetwork], forms: Sequence[str], rivals: Sequence[str], target: Target
) -> list[EngineProfile]:
    """The engines of all networks for a target, ours in each form, then those of other libraries.

    rivals: `timm:NAME` or the path of an ONNX file
    Errors: ArchError as `compile_engine`, and for what cannot be exported
    """
    assert target.gpu is not None
    conditions = {"gpu": target.gpu, "batch": target.batch}
    found = []
    for network in networks:
        if isinstance(network, OnnxNetwork):
            found.append(EngineProfile(target, "file", compile_engine(network.path, **conditions)))  # type: ignore[arg-type]
            continue
        for form in forms:
            report = compile_engine(network, precision=target.precision, form=form, **conditions)  # type: ignore[arg-type]
            if precision_named(target.precision).quantized:
                wide = compile_engine(network, precision="fp16", form=form, **conditions)  # type: ignore[arg-type]
                report = replace(report, notes=(*report.notes, _against_fp16(report, wide)))
            found.append(EngineProfile(target, form, report))
    with tempfile.TemporaryDirectory(prefix="archdsl-profile-") as folder:
        for word in rivals:
            named = _rival(word)
            path = named.made(target, Path(folder))[0].path if isinstance(named, TimmNetwork) else named
            assert path is not None
            report = compile_engine(path, name=word, **conditions)  # type: ignore[arg-type]
            found.append(EngineProfile(target, "file", report))
    return found


def _against_fp16(narrow: EngineReport, wide: EngineReport) -> str:
    """Whether a narrow format pays, as far as an estimate can tell."""
    said = f"{narrow.precision}: {narrow.kernels} kernels and {narrow.bytes_moved / 1e9:.3f} GB"
    said += f", fp16: {wide.kernels} and {wide.bytes_moved / 1e9:.3f} GB"
    if narrow.estimate_ms is None or wide.estimate_ms is None:
        return said
    ratio = narrow.estimate_ms / wide.estimate_ms
    verdict = "no faster than fp16" if ratio >= 1 else "faster than fp16"
    return f"{verdict} by the estimate, {ratio:.2f} times its time ({said})"


def _rival(word: str) -> TimmNetwork | Path:
    """Errors: SpecError for what is neither; ArchError (`missing-file`) for a file that is not there"""
    if not word.endswith(".onnx"):
        return reference_network(word)
    if not Path(word).exists():
        raise ArchError.at("--against", word, "missing-file", f"there is no file {word}")
    return Path(word)


def print_engines(profiles: Sequence[EngineProfile], by: str, top: int) -> None:
    """One table for one target: a line for each kind of work, two or three columns for each network."""
    from archdsl.report.terminal_table import TerminalTable

    reports = [one.report for one in profiles]
    first = reports[0]
    heads: list[str] = [by]
    for number, one in enumerate(profiles):
        heads += [f"{one.report.network}\n{one.form}, kernels", "\nMB", *(["\nratio"] if number else [])]
    columns = [_groups(report, by) for report in reports]
    names = list(dict.fromkeys(name for column in columns for name in column))
    if by != "kind":
        names.sort(key=lambda name: -max(column.get(name, (0, 0))[1] for column in columns))
    rows: list[list[Cell]] = [[name, *_cells([column.get(name, (0, 0)) for column in columns])] for name in names[:top]]
    if len(names) > top:
        rest = [[column.get(name, (0, 0)) for name in names[top:]] for column in columns]
        rows.append([f"{len(names) - top} more", *_cells([(sum(n for n, _ in r), sum(b for _, b in r)) for r in rest])])
    totals = _totals(reports)
    target = profiles[0].target
    title = f"engines for {first.gpu}, batch {target.batch}  ({first.compiler})"
    print_table(TerminalTable(heads, rows + totals, heads[1:], title=title, num_last=len(totals)))
    for report in reports:
        _print_notes(report)
    say(f"{first.not_run}. Estimates: {NOT_VALIDATED}")
    if any(report.network.startswith("timm:") for report in reports):
        say(FAIRNESS)


def _groups(report: EngineReport, by: str) -> dict[str, tuple[int, int]]:
    """For each group of kernels how many there are, and the bytes that they move."""
    found: dict[str, tuple[int, int]] = dict.fromkeys(report.counts, (0, 0)) if by == "kind" else {}
    for layer in report.layers:
        kernels, moved = found.get(GROUPS[by](layer), (0, 0))
        found[GROUPS[by](layer)] = kernels + 1, moved + layer.bytes_moved
    return found


def _cells(columns: Sequence[tuple[int, int]]) -> list[str]:
    """Kernels, MB and (from the second network on) the ratio of kernels to the first."""
    cells = []
    for number, (kernels, moved) in enumerate(columns):
        cells += [str(kernels), f"{moved / 1e6:.1f}"] if kernels else ["–", "–"]
        if number:
            cells.append(f"{kernels / columns[0][0]:.2f}" if columns[0][0] and kernels else "–")
    return cells


def _totals(reports: Sequence[EngineReport]) -> list[list[Cell]]:
    from rich.text import Text

    rows: list[list[Cell]] = [
        [Text(cell, "bold") for cell in ["all", *_cells([(each.kernels, each.bytes_moved) for each in reports])]]
    ]
    shown: list[tuple[str, Callable[[EngineReport], str], Callable[[EngineReport], float | None]]] = [
        ("attentions fused", lambda each: f"{each.attentions_fused} of {each.attentions}", lambda each: None),
        ("estimate, ms (not validated)", lambda each: _ms(each.estimate_ms), lambda each: each.estimate_ms),
        ("engine, MB", lambda each: f"{each.engine_bytes / 1e6:.1f}", lambda each: each.engine_bytes),
        ("built in, s", lambda each: f"{each.build_s:.1f}", lambda each: None),
    ]
    for label, text, value in shown:
        cells, base = [label, text(reports[0]), ""], value(reports[0])
        for report in reports[1:]:
            own = value(report)
            cells += [text(report), "", f"{own / base:.2f}" if own is not None and base else ""]
        rows.append(list(cells))
    return rows


def _ms(ms: float | None) -> str:
    return "–" if ms is None else f"{ms:.2f}"


def _print_notes(report: EngineReport) -> None:
    """What is in its products' types, what only moves data and where that is written, and how full the tiles are."""
    notes = [report.precision]
    moved = sum(layer.bytes_moved for layer in report.moves)
    lines = moves_by_line(report)
    where = "; ".join(f"{line.rpartition('/')[2]}: {number}" for line, number, _, _ in lines[:MOST_LINES])
    more = f"; {len(lines) - MOST_LINES} more" if len(lines) > MOST_LINES else ""
    notes.append(f"{len(report.moves)} kernels only move data, {moved / 1e6:.1f} MB ({where}{more})" if lines else "")
    shares = ((work, report.padding(work)) for work in ("attention", "product"))
    padding = ", ".join(f"{share:.0%} of {work} tiles" for work, share in shares if share is not None)
    notes += [f"padding: {padding}" if padding else "", *report.notes]
    say(f"{report.network}: {' · '.join(note for note in notes if note)}")
