"""`archdsl profile`: where does the time go?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from archdsl.cli.output import json_option, print_json, print_table, set_option, whole_numbers, words
from archdsl.cli.targets import runtime_and_device
from archdsl.latency import FORMS, By, Profile, Share, Target, artefact_of, close_workers, network_for, profile_networks
from archdsl.spec.load import load
from archdsl.spec.model import Spec

if TYPE_CHECKING:
    from rich.table import Table


@click.command(
    epilog="Examples: archdsl profile swin_t swin_free_t · archdsl profile swin_t --form drawn,deploy --on openvino"
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option("--form", "forms", default="deploy", show_default=True, help=f"Any of {', '.join(FORMS)}, by commas.")
@click.option(
    "--on",
    "runtimes",
    default="onnxruntime",
    show_default=True,
    help="Runtimes, separated by commas, each with a device if you like: torch,tensorrt:cuda.",
)
@click.option("--device", help="cpu or cuda, where --on says none; by default the one the runtime knows first.")
@click.option("--batch", "batches", default="1", show_default=True, help="Batch sizes, separated by commas.")
@click.option("--precision", default="fp32", show_default=True, help="Precision.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Threads of the runtime.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.1, 600), help="Runs of each, twice.")
@click.option("--by", type=click.Choice(["kind", "op", "stage", "node"]), default="kind", show_default=True)
@click.option("--top", default=20, show_default=True, type=click.IntRange(1), help="Lines to show of each table.")
@set_option
@json_option
def profile(
    specs: tuple[str, ...],
    forms: str,
    runtimes: str,
    device: str | None,
    batches: str,
    precision: str,
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
    """
    loaded = [load(name, set=list(overrides) or None) for name in specs]
    chosen = words("--form", forms, tuple(FORMS))
    targets = [
        Target.parse({"runtime": name, **where, "precision": precision, "batch": batch, "threads": threads})
        for name, where in [runtime_and_device(word, device) for word in words("--on", runtimes)]
        for batch in whole_numbers("--batch", batches)
    ]
    for target in targets:
        target.fingerprint()  # what is missing is told before anything is timed
    found: list[list[Profile]] = []
    try:
        for target in targets:
            click.echo(f"profiling on {target} …", err=True)
            found.append(_profiles(loaded, chosen, target, seconds))
    finally:
        close_workers()
    grouping = cast(By, by)
    if as_json:
        print_json({"profiles": [one.as_json(grouping) for profiles in found for one in profiles]})
    else:
        for profiles in found:
            _print(profiles, grouping, top)
    return 0


def _profiles(specs: Sequence[Spec], forms: Sequence[str], target: Target, seconds: float) -> list[Profile]:
    with tempfile.TemporaryDirectory(prefix="archdsl-profile-") as folder:
        networks = [
            (
                artefact_of(spec, target, Path(folder), form=form),
                network_for(spec, target, form).graph,
            )
            for spec in specs
            for form in forms
        ]
        return profile_networks(networks, target, seconds=seconds)


def _print(profiles: Sequence[Profile], by: By, top: int) -> None:
    """One table for one target: a line for each kind, two or three columns for each network."""
    from rich import box
    from rich.table import Table

    first = profiles[0]
    title = f"{first.target}  ({first.target.runtime} {first.latency.runtime_version})"
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    table.add_column(by)
    for number, one in enumerate(profiles):
        table.add_column(f"{one.network}\n{one.form}, ms", justify="right")
        table.add_column("\nshare", justify="right")
        if number:
            table.add_column("\nratio", justify="right")
    shares = [{share.name: share for share in one.shares(by)} for one in profiles]
    names = list(dict.fromkeys(name for column in shares for name in column))
    for name in names[:top]:
        table.add_row(name, *_cells([column.get(name) for column in shares]))
    if len(names) > top:
        rest = [_sum_of([column[name] for name in names[top:] if name in column]) for column in shares]
        table.add_row(f"{len(names) - top} more", *_cells(rest))
    table.add_section()
    _add_totals(table, profiles)
    print_table(table)
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


def _add_totals(table: Table, profiles: Sequence[Profile]) -> None:
    """The sum of the ops, the latency without the profiler, and what a profiled run's ops are of that."""
    for label, values in (
        ("total of ops", [one.total_ms for one in profiles]),
        ("latency without profiler", [one.latency.median_ms for one in profiles]),
    ):
        cells: list[str] = []
        for number, ms in enumerate(values):
            cells += [f"{ms:.2f}", ""]
            if number:
                cells.append(f"{ms / values[0]:.2f}" if values[0] else "–")
        table.add_row(label, *cells, style="bold" if label == "total of ops" else None)
    ends = [[f"{one.overhead:.3f}", *([""] * (1 + bool(number)))] for number, one in enumerate(profiles)]
    table.add_row("ops of a run / latency", *(cell for end in ends for cell in end))


def _print_notes(one: Profile, shares: dict[str, Share]) -> None:
    """How it was taken, what was fused into what, and what to know before believing it."""
    fused = [
        f"{share.name} + {', '.join(f'{kind} ({count})' for kind, count in sorted(share.fused.items()))}"
        for share in shares.values()
        if share.fused
    ]
    notes: list[Any] = [f"{one.method} ({one.runs} runs)", *(["fused: " + "; ".join(fused)] if fused else [])]
    click.echo(f"{one.network}, {one.form}: " + " · ".join([*notes, *one.latency.notes]))
