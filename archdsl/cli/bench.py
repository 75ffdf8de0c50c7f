"""`archdsl bench`: which network is faster, here, on this runtime?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from archdsl.cli.output import human, json_option, print_json, print_table, set_option, whole_numbers
from archdsl.compiler import cost
from archdsl.latency import FORMS, Comparison, Target, artefact_of, close_workers, compare
from archdsl.spec.load import load
from archdsl.spec.model import Spec


@click.command(epilog="Examples: archdsl bench swin_t swin_free_t · archdsl bench swin_t --on torch --batch 1,8 --json")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option("--on", "runtimes", default="onnxruntime", show_default=True, help="Runtimes, separated by commas.")
@click.option("--form", type=click.Choice(list(FORMS)), default="deploy", show_default=True, help="Of the networks.")
@click.option("--batch", "batches", default="1", show_default=True, help="Batch sizes, separated by commas.")
@click.option("--precision", default="fp32", show_default=True, help="Precision.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Threads of the runtime.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.1, 600), help="Timed runs of each.")
@set_option
@json_option
def bench(
    specs: tuple[str, ...],
    runtimes: str,
    form: str,
    batches: str,
    precision: str,
    threads: int,
    seconds: float,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Time networks side by side, in turns, in one worker process; ratios are to the first.

    The networks have random weights: latency does not depend on them. ± is the 95 % interval of the median.
    """
    loaded = [load(name, set=list(overrides) or None) for name in specs]
    targets = [
        Target(runtime.strip(), precision=precision, batch=batch, threads=threads)
        for runtime in runtimes.split(",")
        for batch in whole_numbers("--batch", batches)
    ]
    results: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="archdsl-bench-") as folder:
            for target in targets:
                click.echo(f"timing on {target} …", err=True)
                found = compare(
                    [artefact_of(s, target, Path(folder), form=form) for s in loaded], target, budget_s=seconds
                )
                results.extend(_rows(loaded, target, found))
    finally:
        close_workers()
    if as_json:
        print_json({"results": results})
    else:
        _print(results)
    return 0


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
    for name in ("spec", "runtime", "batch", "latency", "p95", "ratio to the first", "images/s", "MACs", "notes"):
        table.add_column(name, justify="left" if name in ("spec", "runtime", "notes") else "right")
    for row in results:
        ratio = f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
        table.add_row(
            row["spec"],
            row["target"]["runtime"],
            str(row["batch"]),
            row["shown"],
            f"{row['p95_ms']:.2f} ms",
            ratio,
            f"{row['images_per_second']:.1f}",
            human(row["macs"]),
            "; ".join(row["notes"]),
        )
    print_table(table)
