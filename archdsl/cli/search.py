"""`archdsl search`: from a space to its Pareto front."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli import options
from archdsl.cli.output import INTERRUPTED, print_json, print_table, say, say_lines
from archdsl.cli.parameters import Seconds, SpecName
from archdsl.cli.weights import unused_weights_options
from archdsl.errors import ArchError, at_argument
from archdsl.language.text.files import StandardInput
from archdsl.language.text.words import number_of

if TYPE_CHECKING:
    from archdsl.runs.search import SearchResult

STOPPED = {
    "trials": "all trials are done",
    "time": "the time is up",
    "exhausted": "every network of the space has been seen",
    "nothing-new": "no new network was found",
    "no-gain": "the last networks brought no gain beyond noise",
    "interrupted": "interrupted",
    "handed-over": "the study is ready for `archdsl worker`",
}


@click.command(
    epilog="Examples: archdsl search --objective latency · archdsl search my_space.yaml --trials 200 --time-limit 2h"
)
@click.argument("space", metavar="[SPACE]", required=False, type=SpecName())
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME",
    help="latency, throughput, peak_memory, energy, params or macs, against accuracy; with several targets latency "
    "stands for all of them, latency@LABEL for one; latency_estimate, for a GPU not at hand, trains nothing unless "
    "accuracy is named too; may be given several times [default: what the space names].",
)
@click.option("--trials", type=click.IntRange(1), help="How many networks to evaluate [default: the space's].")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of the proposals and trainings.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results [default: runs/NAME].")
@click.option("--storage", metavar="URL", help="Where the study is kept: a file, sqlite:///…, postgresql://…")
@click.option(
    "--time-limit", "time_limit_s", type=Seconds(), help="Begin no network that would end later, e.g. 90s, 5min or 2h."
)
@click.option("--data", metavar="DATA", help="Train on these data: synthetic, imagefolder:DIR, hf:DIR or a plain DIR.")
@click.option("--recipe", metavar="NAME|FILE", help="Train by this recipe and its epochs, not by the space's.")
@click.option("--epochs", type=click.IntRange(1), help="Train for so many epochs.")
@click.option("--weights", type=click.Path(path_type=Path), help="Start each training from this .safetensors file.")
@options.source
@options.ema
@options.new_head
@click.option(
    "--on",
    metavar="RUNTIME[:GPU]",
    help="Take the latency on this runtime (estimate it: tensorrt-rtx:GPU), whatever the space says.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 1024),
    default=1,
    help="Processes that search together; 0 only makes the study ready for `archdsl worker` elsewhere.",
)
@click.option("--launch", metavar="ray[://HOST:PORT]", help="Let a Ray cluster run the workers.")
@options.lease_s
@click.option("--fresh", is_flag=True, help="Begin anew; the study that is there is set aside.")
@click.option(
    "--reuse",
    multiple=True,
    metavar="RUN",
    help="Folder of another search, whose finished trainings count here too; may be given several times.",
)
@click.option("--no-confirm", is_flag=True, help="Report the front without re-evaluating its networks.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change the space, e.g. --set search.sampler=nsga2."
)
@options.as_json
def search(
    space: str | StandardInput | None,
    objectives: tuple[str, ...],
    trials: int | None,
    seed: int | None,
    out: Path | None,
    storage: str | None,
    time_limit_s: float | None,
    data: str | None,
    recipe: str | None,
    epochs: int | None,
    weights: Path | None,
    source: str | None,
    ema: bool,
    new_head: bool,
    on: str | None,
    workers: int,
    launch: str | None,
    lease_s: float,
    fresh: bool,
    reuse: tuple[str, ...],
    overrides: tuple[str, ...],
    no_confirm: bool,
    as_json: bool,
) -> int:
    """Search SPACE for its Pareto front: the networks that no other dominates.

    Accuracy comes from real training, latency is measured. Known designs are evaluated first, no network
    twice. With --weights each training starts from what of the file fits its network. At the end the networks of the
    front are re-evaluated. Ctrl-C ends cleanly, and the same command resumes.
    Without SPACE, the shipped quickstart is searched.
    """
    from archdsl.runs.search import QUICKSTART
    from archdsl.runs.search import search as run_search

    if space is None:
        what = "micro Swin and Swin-Free networks on generated images"
        say(f"no space was given: searching the shipped `{QUICKSTART}`, {what}", err=True)
    own_epochs = [] if recipe is None else ["objectives.accuracy.train.epochs=null"]  # the space's are for its recipe
    if problems := unused_weights_options(weights, source, allow_pickle=False, ema=ema, new_head=new_head):
        raise ArchError(problems)
    start = (
        {"file": str(weights.absolute()), "from": source or "archdsl", "ema": ema, "new_head": new_head}
        if weights
        else None
    )
    result = run_search(
        space or QUICKSTART,
        objectives=objectives,
        trials=trials,
        seed=seed,
        out=out,
        storage=storage,
        time_limit_s=time_limit_s,
        set=[*own_epochs, *overrides, *_training(data, recipe, epochs, start)] or None,
        on=on,
        fresh=fresh,
        reuse=reuse,
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


def _training(data: str | None, recipe: str | None, epochs: int | None, weights: Mapping[str, Any] | None) -> list[str]:
    """What --data, --recipe, --epochs and --weights change in the space, as overrides.

    Errors: SpecError for data or a recipe that are none
    """
    from archdsl.cli.train import data_fields
    from archdsl.training import parse_recipe

    if recipe is not None:
        parse_recipe(recipe, at_argument("--recipe", recipe))
    fields = {
        "data": data_fields(data) if data is not None else None,
        "recipe": recipe,
        "epochs": epochs,
        "weights": weights,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return [f"objectives.accuracy.train.{name}={json.dumps(value)}" for name, value in given.items()]


def _print(result: SearchResult) -> None:
    from archdsl.report.front_picture import front_scatter
    from archdsl.report.front_table import front_table
    from archdsl.report.stopped_early import stopped_early
    from archdsl.runs.reuse import reused_by_origin
    from archdsl.study.objectives import named

    evaluated = sum(not record.cheap and record.state != "open" for record in result.records)
    trials = number_of(len(result.records), "trial")
    say(f"{STOPPED[result.reason]}: {number_of(evaluated, 'network')} evaluated in {trials}", err=True)
    stopping = stopped_early(result.records)
    early = [f"early stopping: {stopping}"] if stopping else []
    if not result.rows:
        say_lines("\n".join(["the front is empty: no network has finished and keeps to the constraints", *early]))
        return
    title = f"{result.study}: the front, {number_of(len(result.rows), 'network')}"
    print_table(front_table(result.rows, title, result.objectives))
    if len(result.objectives) >= 2:
        say_lines(front_scatter(result.front))
    if result.front.contenders:
        names = ", ".join(point.record.name or "" for point in result.front.contenders)
        say(f"dominated, but within noise of the front: {names}")
    for line in early:
        say(line)
    if result.confirmation is not None:
        say(f"front: {result.confirmation}")
    accuracy = next((row.record.accuracy for row in result.rows if row.record.accuracy), None)
    if accuracy is not None:
        say(f"accuracy: {accuracy.data}, recipe {accuracy.recipe}; ± is one standard error")
        if result.evaluator is not None:
            say(f"evaluator: {result.evaluator}")
        for origin, number in reused_by_origin(result.records).items():
            say(f"reused: {number} trainings of {origin}")
        for note in accuracy.notes:
            say(f"note: {note}", err=True)
    timings = {target: timing for row in result.rows for target, timing in row.record.timing_by_target.items()}
    for target, timing in timings.items():
        device = f"{timing.runtime} {timing.runtime_version} on {timing.device_name}"
        name = named("latency", target)
        say(f"{name}: {device}, {timing.precision}, batch {timing.batch}; ± is the 95 % interval")
    if result.estimates is not None:
        say(f"latency_estimate: {result.estimates}")
    say(f"written to {result.folder.path}/: report.html, front.csv, front.svg, front/*.yaml")
    if result.reason == "interrupted":
        say("the same command resumes", err=True)
