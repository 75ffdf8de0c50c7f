"""`archdsl bench`: which network is faster, here, on this runtime?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from archdsl.backends.precision import precision_named
from archdsl.cli.output import json_option, print_json, print_table, seconds, set_option, whole_numbers, words
from archdsl.cli.targets import skipped_line, targets_of, together, why
from archdsl.compiler import cost
from archdsl.latency import (
    FORMS,
    Artefact,
    Reference,
    Target,
    TimingCache,
    artefact_of,
    close_workers,
)
from archdsl.latency.against import FAIRNESS, TimmNetwork, reference_network
from archdsl.latency.side_by_side import Standing, side_by_side
from archdsl.spec.load import load
from archdsl.spec.model import Spec


@click.command(
    epilog="Examples: archdsl bench swin_t swin_free_t · archdsl bench swin_t --on torch --batch 1,8 --json · "
    "archdsl bench swin_t --against timm:swin_tiny_patch4_window7_224"
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option(
    "--on",
    "runtimes",
    default="onnxruntime",
    show_default=True,
    help="Runtimes, separated by commas, each with a device if you like: onnxruntime,tensorrt:cuda.",
)
@click.option("--against", multiple=True, metavar="timm:NAME", help="Models of timm to time beside them, in turns.")
@click.option("--form", type=click.Choice(list(FORMS)), default="deploy", show_default=True, help="Of the networks.")
@click.option("--batch", "batches", default="1", show_default=True, help="Batch sizes, separated by commas.")
@click.option("--device", help="cpu or cuda, where --on says none; by default the one the runtime knows first.")
@click.option("--precision", "precisions", default="fp32", show_default=True, help="Precisions, separated by commas.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Threads of the runtime.")
@click.option(
    "--seconds",
    "budget_s",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.1, 600),
    help="Timed runs of each.",
)
@click.option("--deadline", metavar="TIME", help="Each may take so long, e.g. 30min [default: by the runtime].")
@click.option("--predict", "predicted", is_flag=True, help="Measure only the first; predict the others from segments.")
@set_option
@json_option
def bench(
    specs: tuple[str, ...],
    runtimes: str,
    against: tuple[str, ...],
    form: str,
    batches: str,
    device: str | None,
    precisions: str,
    threads: int,
    budget_s: float,
    deadline: str | None,
    predicted: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Time networks side by side, in turns, in one worker process; ratios are to the first that works.

    The networks have random weights: latency does not depend on them. A network counts only if it answers as fp32
    PyTorch does, as nearly as its precision allows. ± is the 95 % interval of the median; memory is the most that
    loading and running took beyond an idle worker. `faster` and `slower` are said only where the ratio's 99 % interval
    leaves out 1.

    What a runtime does not know or this machine lacks is listed as skipped, a network that does not work as failed, and
    the exit code is 0 as long as something was measured.
    """
    loaded = [load(name, set=list(overrides) or None) for name in specs]
    deadline_s = None if deadline is None else seconds("--deadline", deadline)
    rivals = [reference_network(word) for given in against for word in words("--against", given)]
    targets, skipped = targets_of(runtimes, device, precisions, whole_numbers("--batch", batches), threads)
    if predicted:
        from archdsl.cli.bench_predict import bench_predict

        kept = form if form != "deploy" else None
        others = {"--form": kept, "--against": " ".join(against), "--deadline": deadline}
        return bench_predict(loaded, targets, skipped, others, seconds=budget_s, as_json=as_json)
    ours = [OurNetwork(spec, form) for spec in loaded]
    standings: list[Standing] = []
    try:
        with tempfile.TemporaryDirectory(prefix="archdsl-bench-") as folder:
            for target in targets:
                click.echo(f"timing on {target} …", err=True)
                standings += side_by_side(
                    [*ours, *rivals],
                    target,
                    Path(folder),
                    budget_s=budget_s,
                    deadline_s=deadline_s,
                    cache=TimingCache(),
                    energy=True,
                )
    finally:
        close_workers()
    failed = [standing for standing in standings if standing.timing is None]
    results = [_row(standing) for standing in standings if standing.timing is not None]
    if not results:
        raise together([standing.error for standing in failed if standing.error is not None])
    if as_json:
        print_json({"results": results, "failed": list(map(_failure, failed)), "skipped": skipped})
        return 0
    from archdsl.report.bench_table import bench_table, footnotes

    print_table(bench_table(results))
    for mark, note in footnotes(results).items():
        click.echo(f"{mark} {note}")
    for standing in failed:
        told = _failure(standing)
        click.echo(f"failed: {told['spec']} on {standing.target}: {told['message']} [{told['reason']}]")
    for left in skipped:
        click.echo(skipped_line(left))
    if rivals:
        timed = [one.entrant for one in standings if one.timing is not None and isinstance(one.entrant, TimmNetwork)]
        click.echo(f"{FAIRNESS}{_sizes(loaded, timed)}")
    return 0


@dataclass(frozen=True)
class OurNetwork:
    """A spec as `side_by_side` takes it; what it must answer is found once for all targets."""

    spec: Spec
    form: str

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def macs(self) -> int:
        return cost(self.spec).macs

    @cached_property
    def expected(self) -> Reference:
        from archdsl.latency.expected import reference_of

        return reference_of(self.spec)

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        """Errors: BackendError as `artefact_of`"""
        artefact = artefact_of(self.spec, target, folder, form=self.form)
        if target.is_analytic:
            return artefact, None
        return artefact, replace(self.expected, tolerance=precision_named(target.precision).tolerance)


def _failure(standing: Standing) -> dict[str, Any]:
    assert standing.error is not None
    return {"spec": standing.entrant.name, "target": standing.target.as_json(), **why(standing.error)}


def _row(standing: Standing) -> dict[str, Any]:
    """Facts of one network on one target, as `--json` prints them."""
    timing, ratio = standing.timing, standing.ratio
    assert timing is not None and ratio is not None and isinstance(standing.entrant, OurNetwork | TimmNetwork)
    return {
        "spec": standing.entrant.name,
        "target": standing.target.as_json(),
        **timing.as_json(),
        "images_per_second": timing.images_per_second,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "ratio_to": standing.against,
        "verdict": ratio.verdict,
        "notes": list(timing.notes),
        "shown": str(timing),
        "macs": standing.entrant.macs,
    }


def _sizes(specs: Sequence[Spec], rivals: Sequence[TimmNetwork]) -> str:
    """A warning where the networks do not look at images of one size."""
    sizes = {tuple(spec.input.size) for spec in specs} | {rival.input_shape[1:] for rival in rivals}
    if len(sizes) == 1:
        return ""
    shown = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
    return f"; the images differ in size ({shown}), so the ratios compare more than the networks"
