"""`archdsl search`: from a space to its Pareto front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.output import LEAST_LEASE_S, json_option, print_json, print_table, seconds
from archdsl.errors import at_argument

if TYPE_CHECKING:
    from archdsl.report.search_run import SearchResult

INTERRUPTED = 130
STOPPED = {
    "trials": "all trials are done",
    "time": "the time is up",
    "exhausted": "every network of the space has been seen",
    "nothing-new": "no new network was found any more",
    "no-gain": "the last networks brought no gain beyond noise",
    "interrupted": "interrupted",
    "handed-over": "the study is ready for `archdsl worker`",
}


@click.command(
    epilog="Examples: archdsl search --objective latency · archdsl search my_space.yaml --trials 200 --time-limit 2h"
)
@click.argument("space", metavar="[SPACE]", required=False)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME",
    help="latency, throughput, peak_memory, energy, params or macs, against accuracy; with several targets latency "
    "stands for all of them, latency@LABEL for one; may be given several times [default: what the space names].",
)
@click.option("--trials", type=click.IntRange(1), help="How many networks to pay for [default: the space's].")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of the proposals and trainings.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results [default: runs/NAME].")
@click.option("--storage", metavar="URL", help="Where the study is kept: a file, sqlite:///…, postgresql://…")
@click.option("--time-limit", metavar="TIME", help="Begin no network that would end later, e.g. 90s, 5min or 2h.")
@click.option("--data", metavar="DATA", help="Train on these data: synthetic, imagefolder:DIR, hf:DIR or a plain DIR.")
@click.option("--recipe", metavar="NAME|FILE", help="Train by this recipe and its epochs, not by the space's.")
@click.option("--epochs", type=click.IntRange(1), help="Train for so many epochs.")
@click.option("--on", metavar="RUNTIME", help="Take the latency on this runtime, whatever the space says.")
@click.option(
    "--workers",
    type=click.IntRange(0, 1024),
    default=1,
    help="Processes that search together; 0 only makes the study ready for `archdsl worker` elsewhere.",
)
@click.option("--launch", metavar="ray[://HOST:PORT]", help="Let a Ray cluster run the workers.")
@click.option("--lease", default="60s", metavar="TIME", help="After this long without a sign, a worker is replaced.")
@click.option("--fresh", is_flag=True, help="Begin anew; the study that is there is set aside.")
@click.option("--no-confirm", is_flag=True, help="Declare the front without evaluating its networks again.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change the space, e.g. --set search.sampler=nsga2."
)
@json_option
def search(
    space: str | None,
    objectives: tuple[str, ...],
    trials: int | None,
    seed: int | None,
    out: Path | None,
    storage: str | None,
    time_limit: str | None,
    data: str | None,
    recipe: str | None,
    epochs: int | None,
    on: str | None,
    workers: int,
    launch: str | None,
    lease: str,
    fresh: bool,
    overrides: tuple[str, ...],
    no_confirm: bool,
    as_json: bool,
) -> int:
    """Search SPACE for the networks that are not beaten in every objective: the Pareto front.

    Accuracy comes from real training, latency is measured. Known designs are tried first, no network is paid for
    twice. At the end what stands on the front is evaluated again. Ctrl-C ends cleanly, and the same command goes on.
    Without SPACE, the shipped quickstart is searched.
    """
    limit_s = seconds("--time-limit", time_limit) if time_limit is not None else None
    lease_s = seconds("--lease", lease, least=LEAST_LEASE_S)
    from archdsl.report.search_run import QUICKSTART
    from archdsl.report.search_run import search as run_search

    if space is None:
        what = "micro Swin and Swin-Free networks on generated images"
        click.echo(f"no space was given: searching the shipped `{QUICKSTART}`, {what}", err=True)
    result = run_search(
        space or QUICKSTART,
        objectives=objectives,
        trials=trials,
        seed=seed,
        out=out,
        storage=storage,
        time_limit_s=limit_s,
        set=[*_without_epochs(recipe), *overrides, *_training(data, recipe, epochs)] or None,
        on=on,
        fresh=fresh,
        workers=workers,
        launch=launch,
        lease_s=lease_s,
        confirm=not no_confirm,
        quiet=False,
    )
    if as_json:
        print_json(result.as_json())
    else:
        _print(result)
    return INTERRUPTED if result.reason == "interrupted" else 0


def _without_epochs(recipe: str | None) -> list[str]:
    """The epochs that a space names are for its own recipe: one that takes its place brings its own."""
    return [] if recipe is None else ["objectives.accuracy.train.epochs=null"]


def _training(data: str | None, recipe: str | None, epochs: int | None) -> list[str]:
    """What --data, --recipe and --epochs change in the space, as overrides.

    Errors: SpecError for data or a recipe that are none
    """
    from archdsl.cli.train import data_fields
    from archdsl.training import parse_recipe

    if recipe is not None:
        parse_recipe(recipe, at_argument("--recipe", recipe))
    fields = {"data": data_fields(data) if data is not None else None, "recipe": recipe, "epochs": epochs}
    given = {name: value for name, value in fields.items() if value is not None}
    return [f"objectives.accuracy.train.{name}={json.dumps(value)}" for name, value in given.items()]


def _print(result: SearchResult) -> None:
    from archdsl.report.front_scatter import front_scatter
    from archdsl.report.front_table import front_table
    from archdsl.report.stopped_early import stopped_early
    from archdsl.study.objectives import named

    paid = sum(not record.cheap and record.state != "open" for record in result.records)
    click.echo(f"{STOPPED[result.reason]}: {paid} networks paid for in {len(result.records)} trials", err=True)
    stopping = stopped_early(result.records)
    early = [f"early stopping: {stopping}"] if stopping else []
    if not result.rows:
        click.echo("\n".join(["the front is empty: no network has finished and keeps to the constraints", *early]))
        return
    print_table(front_table(result.rows, f"{result.study}: the front, {len(result.rows)} networks", result.objectives))
    if len(result.objectives) >= 2:
        click.echo(front_scatter(result.front))
    if result.front.contenders:
        names = ", ".join(point.record.name or "" for point in result.front.contenders)
        click.echo(f"beaten, but within noise of the front: {names}")
    for line in early:
        click.echo(line)
    if result.confirmation is not None:
        click.echo(f"front: {result.confirmation}")
    accuracy = next((row.record.accuracy for row in result.rows if row.record.accuracy), None)
    if accuracy is not None:
        click.echo(f"accuracy: {accuracy.data}, recipe {accuracy.recipe}; ± is one standard error")
        if result.evaluator is not None:
            click.echo(f"evaluator: {result.evaluator}")
        for note in accuracy.notes:
            click.echo(f"note: {note}", err=True)
    for target, timing in {t: timing for row in result.rows for t, timing in row.record.taken.items()}.items():
        device = f"{timing.runtime} {timing.runtime_version} on {timing.device_name}"
        name = named("latency", target)
        click.echo(f"{name}: {device}, {timing.precision}, batch {timing.batch}; ± is the 95 % interval")
    click.echo(f"written to {result.folder.path}/: report.html, front.csv, front.svg, front/*.yaml")
    if result.reason == "interrupted":
        click.echo("the same command goes on", err=True)
