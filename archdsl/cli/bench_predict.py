"""The part of `archdsl bench` that predicts: the first network is measured, the others follow from their segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.output import human, print_json, print_table
from archdsl.cli.targets import skipped_line, together, why
from archdsl.errors import ArchError, MeasureError, Problem, at_argument
from archdsl.latency import Target, Timing, TimingCache, close_workers
from archdsl.spec.model import Spec

if TYPE_CHECKING:
    from archdsl.report.prediction import Beside

MOST_SEGMENTS = 1000
SEGMENT_SHARE = 0.25
"""A segment is timed for this part of what a whole network is."""


def bench_predict(
    specs: Sequence[Spec],
    targets: Sequence[Target],
    skipped: Sequence[dict[str, Any]],
    others: Mapping[str, object],
    *,
    seconds: float,
    as_json: bool,
) -> int:
    """Print what is measured and what is predicted, marked as such. -> exit code

    skipped: targets that were left out, and why; others: options of `bench` that predicting has no use for, where given
    Errors: ArchError when one of those is given; every target's MeasureError when nothing can be predicted on any
    """
    for option, value in others.items():
        if value:
            message = "--predict is about our own networks in their deploy form, measured as the predictor needs it"
            hint = "leave out --predict, or the other option"
            raise ArchError(Problem(at_argument("--predict", f"{option} {value}"), "usage", message, hint))
    from archdsl.report.prediction import beside

    results: list[dict[str, Any]] = []
    errors: dict[Target, MeasureError] = {}
    try:
        for target in targets:
            try:
                found = beside(
                    specs,
                    target,
                    cache=TimingCache(),
                    most_segments=MOST_SEGMENTS,
                    segment_s=SEGMENT_SHARE * seconds,
                    network_s=seconds,
                    say=lambda message: click.echo(f"{message} …", err=True),
                )
            except MeasureError as error:
                errors[target] = error
            else:
                results += [_row(one, target) for one in found]
    finally:
        close_workers()
    if not results:
        raise together(list(errors.values()))
    failed = [{"target": target.as_json(), **why(error)} for target, error in errors.items()]
    if as_json:
        print_json({"results": results, "failed": failed, "skipped": list(skipped)})
        return 0
    _print(results)
    for target, told in zip(errors, failed, strict=True):
        click.echo(f"failed: {target}: {told['message']} [{told['reason']}]")
    for left in skipped:
        click.echo(skipped_line(left))
    return 0


def _row(one: Beside, target: Target) -> dict[str, Any]:
    """Facts of one network: of a `predicted` one a median with its interval, else a measured median."""
    facts = {"spec": one.network.spec.name, "target": target.as_json(), "macs": one.network.cost.macs}
    if isinstance(one.result, MeasureError):
        problem = one.result.problems[0]
        return {**facts, "predicted": None, "shown": f"not predicted: {problem.message}", "reason": problem.rule}
    if isinstance(one.result, Timing):
        return {**facts, "predicted": False, **one.result.as_json(), "shown": f"{one.result} measured"}
    return {**facts, **one.result.as_json()}


def _print(results: Sequence[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in ("spec", "runtime", "precision", "batch", "latency", "MACs"):
        table.add_column(name, justify="left" if name in ("spec", "runtime", "precision") else "right")
    for row in results:
        target = row["target"]
        where = target["runtime"] + ("" if target["device"] == "cpu" else f" on {target['device']}")
        cells = (row["spec"], where, target["precision"], str(target["batch"]), row["shown"], human(row["macs"]))
        table.add_row(*cells)
    print_table(table)
    click.echo("≈ is predicted, and the range what a measurement would show nine times in ten; nothing else ran")
