"""`archdsl profile`: where does the time go?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, print_table, say
from archdsl.cli.parameters import SpecName, Words
from archdsl.cli.profile_engine import engine_profiles, print_engines
from archdsl.cli.streams import keep_unwritten
from archdsl.cli.targets import runtime_and_device, target_of
from archdsl.errors import SpecError
from archdsl.language.architecture.load import load
from archdsl.language.architecture.model import Spec
from archdsl.language.text.files import StandardInput
from archdsl.latency import By, Profile, Share, close_workers, profile_networks
from archdsl.runtimes.export import FORMS, artefact_of, network_for
from archdsl.runtimes.onnx_files import OnnxNetwork
from archdsl.runtimes.target import ResolvedTarget, resolve

if TYPE_CHECKING:
    from archdsl.report.terminal_table import Cell


@click.command(
    epilog="Examples: archdsl profile swin_t swin_free_t · archdsl profile swin_t --form drawn,deploy --on openvino · "
    "archdsl profile swin_t --on tensorrt-rtx:sm86 --against timm:swin_tiny_patch4_window7_224"
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…", type=SpecName())
@click.option(
    "--against",
    type=Words(),
    multiple=True,
    metavar="timm:NAME|FILE.onnx",
    help="Beside them, on tensorrt-rtx:GPU: models of timm, ONNX files.",
)
@click.option(
    "--form", "forms", type=Words(tuple(FORMS)), default="deploy", show_default=True, help=f"Any of {', '.join(FORMS)}."
)
@options.runtimes
@options.device
@options.batches
@click.option("--precision", help="Precision [default: fp32; of engines for a named GPU fp16].")
@options.threads
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.1, 600), help="Runs of each, twice.")
@click.option("--by", type=click.Choice(["kind", "op", "stage", "node"]), default="kind", show_default=True)
@click.option("--top", default=20, show_default=True, type=click.IntRange(1), help="Lines to show of each table.")
@options.overrides
@options.as_json
def profile(
    specs: tuple[str | StandardInput, ...],
    against: tuple[list[str], ...],
    forms: list[str],
    runtimes: list[str],
    device: str | None,
    batches: list[int],
    precision: str | None,
    threads: int,
    seconds: float,
    by: str,
    top: int,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show what share of its time a network spends on reorders, norms, activations, attention, linears and so on.

    Taken from the runtime's own profile of single ops. Networks and forms stand side by side, ratios are to the first:
    `drawn` is the network as its paper draws it, `train` after the passes for training, `deploy` after all of them.

    With `--on tensorrt-rtx:sm86` NVIDIA's compiler builds the engine for that GPU, which need not be here, and says
    what it does kernel by kernel: nothing is run, and the estimate of its latency is not validated. There a SPEC may
    also be an ONNX file, and --against puts other libraries' networks beside.
    """
    rivals = [word for words in against for word in words]
    asked = [
        target_of(word, device, precision=precision or _usual_precision(word), batch=batch, threads=threads)
        for word, batch in product(runtimes, batches)
    ]
    targets = [resolve(target) for target in asked if target.gpu is None]  # reported before anything is timed
    if targets and rivals:
        message = f"--against is for engines of a named GPU, not for {targets[0].target}"
        hint = "`archdsl bench --against` times models of timm; `--on tensorrt-rtx:sm86` reads their engines"
        raise SpecError.at("--against", ",".join(rivals), "conflict", message, hint)
    named = [_named(name, overrides, files=not targets) for name in specs]
    engines = [engine_profiles(named, forms, rivals, target) for target in asked if target.gpu is not None]
    loaded = [one for one in named if isinstance(one, Spec)]
    found: list[list[Profile]] = []
    try:
        for on in targets:
            say(f"profiling on {on.target} …", err=True)
            found.append(_profiles(loaded, forms, on, seconds))
    finally:
        close_workers()
    keep_unwritten()
    grouping = cast(By, by)
    if as_json:
        read = [one.as_json() for profiles in engines for one in profiles]
        print_json({"profiles": [one.as_json(grouping) for profiles in found for one in profiles] + read})
    else:
        for made in engines:
            print_engines(made, by, top)
        for profiles in found:
            _print(profiles, grouping, top)
    return 0


def _usual_precision(word: str) -> str:
    """fp16 for an engine of a named GPU, as it would be deployed; fp32 for what is timed here."""
    return "fp16" if "gpu" in runtime_and_device(word, None)[1] else "fp32"


def _named(name: str | StandardInput, overrides: tuple[str, ...], *, files: bool) -> Spec | OnnxNetwork:
    """A spec, or an ONNX file where those are taken."""
    path = Path(name) if isinstance(name, str) else None
    if path is None or path.suffix != ".onnx":
        return load(name, set=overrides)
    if not files:
        message = "profile takes specs, as it attributes times to their nodes"
        hint = "archdsl bench times ONNX files; --on tensorrt-rtx:sm86 reads their engines"
        raise SpecError.at(
            "SPEC", str(name), "wrong-value", message, f"{hint}; --on tensorrt-rtx:sm86 reads its engine"
        )
    if not path.exists():
        raise SpecError.at("SPEC", str(name), "missing-file", f"there is no file {name}")
    return OnnxNetwork(path)


def _profiles(specs: Sequence[Spec], forms: Sequence[str], on: ResolvedTarget, seconds: float) -> list[Profile]:
    with tempfile.TemporaryDirectory(prefix="archdsl-profile-") as folder:
        networks = [
            (artefact_of(spec, on.target, Path(folder), form=form), network_for(spec, on.target, form).graph)
            for spec in specs
            for form in forms
        ]
        return profile_networks(networks, on, seconds=seconds)


def _print(profiles: Sequence[Profile], by: By, top: int) -> None:
    """One table for one target: a line for each kind, two or three columns for each network."""
    from archdsl.report.terminal_table import TerminalTable

    first = profiles[0]
    heads: list[str] = [by]
    for number, one in enumerate(profiles):
        heads += [f"{one.network}\n{one.form}, ms", "\nshare", *(["\nratio"] if number else [])]
    shares = [{share.name: share for share in one.shares(by)} for one in profiles]
    names = list(dict.fromkeys(name for column in shares for name in column))
    rows: list[list[Cell]] = [[name, *_cells([column.get(name) for column in shares])] for name in names[:top]]
    if len(names) > top:
        rest = [_sum_of([column[name] for name in names[top:] if name in column]) for column in shares]
        rows.append([f"{len(names) - top} more", *_cells(rest)])
    totals = _totals(profiles)
    title = f"{first.target}  ({first.target.runtime} {first.latency.runtime_version})"
    print_table(TerminalTable(heads, rows + totals, heads[1:], title=title, num_last=len(totals)))
    for one, column in zip(profiles, shares, strict=True):
        _print_notes(one, column)


def _sum_of(shares: Sequence[Share]) -> Share:
    ms, part = sum(share.ms for share in shares), sum(share.share for share in shares)
    return Share("more", ms, part, sum(share.ops for share in shares), {})


def _cells(columns: Sequence[Share | None]) -> list[str]:
    """ms, share and (from the second network on) the ratio to the first."""
    cells = []
    for number, share in enumerate(columns):
        cells += ["–", "–"] if share is None else [f"{share.ms:.2f}", f"{share.share:.1%}"]
        if number:
            cells.append(_ratio(share, columns[0]))
    return cells


def _ratio(share: Share | None, base: Share | None) -> str:
    return f"{share.ms / base.ms:.2f}" if share and base and base.ms else "–"


def _totals(profiles: Sequence[Profile]) -> list[list[Cell]]:
    """The sum of the ops, the latency without the profiler, and what a profiled run's ops are of that."""
    from rich.text import Text

    rows: list[list[Cell]] = []
    totals, latencies = [one.total_ms for one in profiles], [one.latency.median_ms for one in profiles]
    for label, values, style in (("total of ops", totals, "bold"), ("latency without profiler", latencies, "")):
        cells = [label, f"{values[0]:.2f}", ""]
        for ms in values[1:]:
            cells += [f"{ms:.2f}", "", f"{ms / values[0]:.2f}" if values[0] else "–"]
        rows.append([Text(cell, style) for cell in cells])
    first, *others = (f"{one.overhead:.3f}" for one in profiles)
    return [*rows, ["ops of a run / latency", first, "", *(cell for one in others for cell in (one, "", ""))]]


def _print_notes(one: Profile, shares: dict[str, Share]) -> None:
    """How it was taken, what was fused into what, and what to know before believing it."""
    fused = [
        f"{share.name} + {', '.join(f'{kind} ({count})' for kind, count in sorted(share.fused.items()))}"
        for share in shares.values()
        if share.fused
    ]
    notes = [f"{one.method} ({one.runs} runs)", *(["fused: " + "; ".join(fused)] if fused else []), *one.latency.notes]
    say(f"{one.network}, {one.form}: {' · '.join(notes)}")
