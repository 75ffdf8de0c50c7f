"""`archdsl bench`: which network is faster, here, on this runtime?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from archdsl.backends.precision import precision_named
from archdsl.cli.output import human, json_option, print_json, print_table, set_option, whole_numbers
from archdsl.compiler import cost
from archdsl.latency import FORMS, Comparison, Reference, Target, artefact_of, close_workers, compare
from archdsl.spec.load import load
from archdsl.spec.model import Spec


@click.command(epilog="Examples: archdsl bench swin_t swin_free_t · archdsl bench swin_t --on torch --batch 1,8 --json")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option("--on", "runtimes", default="onnxruntime", show_default=True, help="Runtimes, separated by commas.")
@click.option("--form", type=click.Choice(list(FORMS)), default="deploy", show_default=True, help="Of the networks.")
@click.option("--batch", "batches", default="1", show_default=True, help="Batch sizes, separated by commas.")
@click.option("--device", help="cpu or cuda; by default the one the runtime knows first.")
@click.option("--precision", "precisions", default="fp32", show_default=True, help="Precisions, separated by commas.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Threads of the runtime.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.1, 600), help="Timed runs of each.")
@set_option
@json_option
def bench(
    specs: tuple[str, ...],
    runtimes: str,
    form: str,
    batches: str,
    device: str | None,
    precisions: str,
    threads: int,
    seconds: float,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Time networks side by side, in turns, in one worker process; ratios are to the first.

    The networks have random weights: latency does not depend on them. A network counts only if it answers as fp32
    PyTorch does, as nearly as its precision allows. ± is the 95 % interval of the median.
    """
    loaded = [load(name, set=list(overrides) or None) for name in specs]
    where = {} if device is None else {"device": device}
    targets = [
        Target.parse({"runtime": runtime, **where, "precision": precision, "batch": batch, "threads": threads})
        for runtime in _parts(runtimes)
        for precision in _parts(precisions)
        for batch in whole_numbers("--batch", batches)
    ]
    for target in targets:
        target.fingerprint()  # what is missing is told before anything is timed
    results: list[dict[str, Any]] = []
    references = Expected(loaded)
    try:
        with tempfile.TemporaryDirectory(prefix="archdsl-bench-") as folder:
            for target in targets:
                click.echo(f"timing on {target} …", err=True)
                artefacts = [artefact_of(spec, target, Path(folder), form=form) for spec in loaded]
                found = compare(artefacts, target, references=references.on(target), budget_s=seconds)
                results.extend(_rows(loaded, target, found))
    finally:
        close_workers()
    if as_json:
        print_json({"results": results})
    else:
        _print(results)
    return 0


def _parts(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")]


class Expected:
    """What the networks must answer, found once for all targets."""

    def __init__(self, specs: Sequence[Spec]):
        self.specs = specs
        self._known: list[Reference] | None = None

    def on(self, target: Target) -> list[Reference] | None:
        """For each network what it must answer, with the tolerance of the target's precision; None where none runs."""
        if target.is_analytic:
            return None
        from archdsl.study.measured import reference_of

        if self._known is None:
            self._known = [reference_of(spec) for spec in self.specs]
        tolerance = precision_named(target.precision).tolerance
        return [replace(reference, tolerance=tolerance) for reference in self._known]


def _rows(specs: Sequence[Spec], target: Target, found: Comparison) -> list[dict[str, Any]]:
    """Facts of each network on one target, as `--json` prints them."""
    return [
        {
            "spec": spec.name,
            "target": target.as_json(),
            **timing.as_json(),
            "images_per_second": timing.images_per_second,
            "ratio": ratio.median,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
            "notes": list(timing.notes),
            "shown": str(timing),
            "macs": cost(spec).macs,
        }
        for spec, timing, ratio in zip(specs, found.timings, found.ratios, strict=True)
    ]


def _print(results: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in (
        "spec",
        "runtime",
        "precision",
        "batch",
        "latency",
        "p95",
        "ratio to the first",
        "images/s",
        "MACs",
        "notes",
    ):
        table.add_column(name, justify="left" if name in ("spec", "runtime", "precision", "notes") else "right")
    for row in results:
        ratio = f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
        table.add_row(
            row["spec"],
            row["target"]["runtime"] + ("" if row["target"]["device"] == "cpu" else f" on {row['target']['device']}"),
            row["target"]["precision"],
            str(row["batch"]),
            row["shown"],
            f"{row['p95_ms']:.2f} ms",
            ratio,
            f"{row['images_per_second']:.1f}",
            human(row["macs"]),
            "; ".join(row["notes"]),
        )
    print_table(table)
