"""`archdsl bench`: which network is faster, here, on this runtime?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from archdsl.backends.precision import PRECISIONS, precision_named
from archdsl.cli import options
from archdsl.cli.output import print_json, print_table, say
from archdsl.cli.parameters import GivenSeconds, Seconds, SpecName, Words
from archdsl.cli.targets import echo_missing, targets_of, together, why
from archdsl.compiler import cost
from archdsl.errors import ArchError
from archdsl.language.architecture.load import load
from archdsl.language.architecture.model import Spec
from archdsl.language.text.files import StandardInput
from archdsl.latency import TimingCache, close_workers
from archdsl.latency.sampling import BUDGET_S
from archdsl.latency.side_by_side import BenchmarkResult, side_by_side
from archdsl.runtimes.artefact import Artefact, Reference
from archdsl.runtimes.export import FORMS, artefact_of
from archdsl.runtimes.onnx_files import OnnxNetwork, built_network
from archdsl.runtimes.target import Target
from archdsl.runtimes.timm_models import FAIRNESS, TimmNetwork, reference_network


@click.command(
    epilog="Examples: archdsl bench swin_t swin_free_t · archdsl bench swin_t --on torch --batch 1,8 --json · "
    "archdsl bench out/ theirs.onnx · "
    "archdsl bench swin_t --against timm:swin_tiny_patch4_window7_224"
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC|FOLDER|FILE.onnx…", type=SpecName())
@options.runtimes
@click.option(
    "--against",
    type=Words(),
    multiple=True,
    metavar="timm:NAME",
    help="Models of timm to time beside them, interleaved.",
)
@click.option("--form", type=click.Choice(list(FORMS)), default="deploy", show_default=True, help="Of the networks.")
@options.batches
@options.device
@click.option(
    "--precision", "precisions", type=Words(tuple(PRECISIONS)), default="fp32", show_default=True, help="Precisions."
)
@options.threads
@click.option(
    "--seconds",
    "budget_s",
    default=BUDGET_S,
    show_default=True,
    type=click.FloatRange(0.1, 600),
    help="Timed runs of each.",
)
@click.option(
    "--deadline", "deadline_s", type=Seconds(), help="Each may take so long, e.g. 30min [default: by the runtime]."
)
@click.option("--predict", "predicted", is_flag=True, help="Measure only the first; predict the others from segments.")
@options.overrides
@options.as_json
def bench(
    specs: tuple[str | StandardInput, ...],
    runtimes: list[str],
    against: tuple[list[str], ...],
    form: str,
    batches: list[int],
    device: str | None,
    precisions: list[str],
    threads: int,
    budget_s: float,
    deadline_s: GivenSeconds | None,
    predicted: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Time networks interleaved in one worker process; ratios are to the first that works.

    A network is a spec, an ONNX file, or a folder that `archdsl build` wrote, whose ONNX file is timed as it is.

    Networks of specs have random weights: latency does not depend on them. A network counts only if it answers as fp32
    PyTorch does, as nearly as its precision allows. ± is the 95 % interval of the median; memory is the most that
    loading and running took beyond an idle worker. `faster` and `slower` are said only where the ratio's 99 % interval
    leaves out 1.

    What a runtime does not know or this machine lacks is listed as skipped, a network that does not work as failed, and
    the exit code is 0 as long as something was measured.
    """
    named = [_named(name, form, overrides) for name in specs]
    loaded = [one.spec for one in named if isinstance(one, OurNetwork)]
    rivals = [reference_network(word) for given in against for word in given]
    targets, skipped = targets_of(runtimes, device, precisions, batches, threads)
    if predicted:
        from archdsl.cli.bench_predict import bench_predict

        others = {
            "bench": " ".join(one.name for one in named if isinstance(one, OnnxNetwork)),
            "--form": form if form != "deploy" else None,
            "--against": " ".join(map(",".join, against)),
            "--deadline": deadline_s and deadline_s.text,
        }
        return bench_predict(loaded, [on.target for on in targets], skipped, others, seconds=budget_s, as_json=as_json)
    outcomes: list[BenchmarkResult] = []
    try:
        with tempfile.TemporaryDirectory(prefix="archdsl-bench-") as folder:
            for on in targets:
                say(f"timing on {on.target} …", err=True)
                outcomes += side_by_side(
                    [*named, *rivals],
                    on,
                    Path(folder),
                    budget_s=budget_s,
                    deadline_s=deadline_s,
                    cache=TimingCache(),
                    energy=True,
                )
    finally:
        close_workers()
    failed = [result for result in outcomes if result.timing is None]
    results = [_row(result) for result in outcomes if result.timing is not None]
    if not results:
        raise together([result.error for result in failed if result.error is not None])
    failures = list(map(_failure, failed))
    if as_json:
        print_json({"results": results, "failed": failures, "skipped": skipped})
        return 0
    from archdsl.report.bench_table import bench_table, footnotes

    print_table(bench_table(results))
    for mark, note in footnotes(results).items():
        say(f"{mark} {note}")
    missing = zip(failed, failures, strict=True)
    echo_missing([(f"{result.subject.name} on {result.target}", reason) for result, reason in missing], skipped)
    if rivals:
        timed = [one.subject for one in outcomes if one.timing is not None and isinstance(one.subject, TimmNetwork)]
        say(f"{FAIRNESS}{_sizes(loaded, timed)}")
    return 0


def _named(name: str | StandardInput, form: str, overrides: tuple[str, ...]) -> OurNetwork | OnnxNetwork:
    """What a word of the command line names. Errors: ArchError for an option that is about specs alone; as `load`"""
    path = Path(name)
    if isinstance(name, StandardInput) or not (path.is_dir() or path.suffix == ".onnx"):
        return OurNetwork(load(name, set=overrides), form)
    if not path.exists():
        raise ArchError.at("SPEC", str(name), "missing-file", f"there is no file {name}")
    found = built_network(path) if path.is_dir() else OnnxNetwork(path)
    if isinstance(found, Spec):
        return OurNetwork(load(path / "spec.yaml", set=overrides) if overrides else found, form)
    for option, given in (("--set", " ".join(overrides)), ("--form", form if form != "deploy" else "")):
        if given:
            message = f"{option} is about specs, and {name} is timed as it is"
            hint = f"name {path / 'spec.yaml'}" if path.is_dir() else "leave it out"
            raise ArchError.at(option, given, "conflict", message, hint)
    found.check()  # before anything is timed
    return found


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
        from archdsl.runtimes.reference import reference_of

        return reference_of(self.spec)

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        """Errors: BackendError as `artefact_of`"""
        artefact = artefact_of(self.spec, target, folder, form=self.form)
        if target.is_analytic:
            return artefact, None
        return artefact, replace(self.expected, tolerance=precision_named(target.precision).tolerance)


def _failure(result: BenchmarkResult) -> dict[str, Any]:
    assert result.error is not None
    return {"spec": result.subject.name, "target": result.target.as_json(), **why(result.error)}


def _row(result: BenchmarkResult) -> dict[str, Any]:
    """Facts of one network on one target, as `--json` prints them."""
    timing, ratio = result.timing, result.ratio
    assert (
        timing is not None and ratio is not None and isinstance(result.subject, OurNetwork | OnnxNetwork | TimmNetwork)
    )
    return {
        "spec": result.subject.name,
        "target": result.target.as_json(),
        **timing.as_json(),
        "images_per_second": timing.images_per_second,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "ratio_to": result.against,
        "verdict": ratio.verdict,
        "notes": [*timing.notes, *(result.subject.notes if isinstance(result.subject, OnnxNetwork) else ())],
        "shown": str(timing),
        "macs": result.subject.macs,
    }


def _sizes(specs: Sequence[Spec], rivals: Sequence[TimmNetwork]) -> str:
    """A warning where the networks do not look at images of one size."""
    sizes = {tuple(spec.input.size) for spec in specs} | {rival.input_shape[1:] for rival in rivals}
    if len(sizes) == 1:
        return ""
    shown = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
    return f"; the images differ in size ({shown}), so the ratios compare more than the networks"
