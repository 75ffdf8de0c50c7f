"""`archdsl predict`: how long would each network of a space take, from the times of their segments?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.output import human, json_option, print_json, print_table, set_option
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.latency import Target, close_workers
from archdsl.spec import Space, load_any

if TYPE_CHECKING:
    from archdsl.report.prediction import Forecast
    from archdsl.report.prediction_check import Checked

PER_NETWORK = 4
"""Seconds for a whole network, for each second for a segment."""


@click.command(
    epilog="Examples: archdsl predict quickstart --top 5 · archdsl predict search/swin_free_imagenet.yaml --check 40"
)
@click.argument("space", metavar="SPACE")
@click.option("--on", "runtime", default="onnxruntime", show_default=True, help="The runtime; one that takes ONNX.")
@click.option("--device", help="cpu or cuda; by default the one the runtime knows first.")
@click.option("--precision", default="fp32", show_default=True)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 65536), help="Images at once.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Threads of the runtime.")
@click.option(
    "--networks",
    default=8,
    show_default=True,
    type=click.IntRange(1, 24),
    help="Networks measured whole, to learn from.",
)
@click.option(
    "--segments", default=100, show_default=True, type=click.IntRange(1, 1000), help="At most so many are timed."
)
@click.option("--sample", type=click.IntRange(2), help="Networks to predict [default: all of a small space, else 200].")
@click.option(
    "--seconds", default=0.5, show_default=True, type=click.FloatRange(0.02, 600), help="Timed runs a segment."
)
@click.option(
    "--check", "num_checked", default=0, metavar="K", type=click.IntRange(0, 1000), help="Measure K others too."
)
@click.option("--top", default=10, show_default=True, type=click.IntRange(0), help="How many of the fastest to show.")
@click.option("--no-measure", is_flag=True, help="Use only what the timing cache knows.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), metavar="FILE", help="Write all predictions here.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Which networks are drawn.")
@set_option
@json_option
def predict(
    space: str,
    runtime: str,
    device: str | None,
    precision: str,
    batch: int,
    threads: int,
    networks: int,
    segments: int,
    sample: int | None,
    seconds: float,
    num_checked: int,
    top: int,
    no_measure: bool,
    csv_path: Path | None,
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Predict the latencies of SPACE's networks from those of their segments: blocks, stem, head.

    Each segment is timed once, and a few whole networks, from which the predictor learns how far sums are off. An
    interval holds what a measurement would show with probability 0.9. What is measured is kept: a second time nothing
    is. `--check` measures networks that the predictor has not seen, and compares it with multiply-adds and parameters.
    """
    from archdsl.latency.cache.timings import TimingCache
    from archdsl.latency.predictor.networks import Network, networks_of
    from archdsl.report.prediction import forecast
    from archdsl.report.prediction_check import check, hold_out
    from archdsl.report.prediction_rows import csv_of, differences, rows_of
    from archdsl.writing import check_place, write_file

    loaded = _space(space, overrides)
    where = {} if device is None else {"device": device}
    target = Target.parse({"runtime": runtime, **where, "precision": precision, "batch": batch, "threads": threads})
    target.fingerprint()  # what is missing is told before anything is timed
    if csv_path is not None:
        check_place(csv_path)

    def say(message: str) -> None:
        click.echo(f"{message} …", err=True)

    try:
        say(f"looking at {loaded.name}")
        found = networks_of(loaded, sample=sample, seed=seed)
        made = forecast(
            found,
            target,
            cache=TimingCache(),
            num_networks=networks,
            most_segments=segments,
            segment_s=seconds,
            network_s=PER_NETWORK * seconds,
            only_known=no_measure,
            say=say,
        )
        held = hold_out(made, num_checked, seed=seed)
        if len(held) < num_checked:
            left = "no network is" if not held else f"only {len(held)} network{'s are' if len(held) > 1 else ' is'}"
            click.echo(f"{left} left to check: the others that are predicted were learnt from", err=True)
        checked = check(made, held, target, budget_s=PER_NETWORK * seconds, say=say) if held else None
    finally:
        close_workers()
    base = Network.of(loaded.base, loaded.picks_of(loaded.base) or {})
    rows = rows_of(made, base, differences(loaded, base))
    if as_json:
        print_json(_facts(made, rows, checked))
    else:
        _print(made, rows[:top], checked)
    if csv_path is not None:
        write_file(csv_path, csv_of(rows))
        if not as_json:
            click.echo(f"written to {csv_path}")
    return 0


def _space(name: str, overrides: tuple[str, ...]) -> Space:
    """Errors: SpecError where there is no such space; ArchError for a single spec"""
    loaded = load_any(name, set=list(overrides) or None)
    if isinstance(loaded, Space):
        return loaded
    message = f"{name} is one network, and predict is about a space of them"
    hint = f"`archdsl bench {name}` measures it; `archdsl bench A B C --predict` predicts B and C"
    raise ArchError(Problem(at_argument("SPACE", name), "not-a-space", message, hint))


def _facts(made: Forecast, rows: list[dict[str, Any]], checked: Checked | None) -> dict[str, Any]:
    """What `--json` prints."""
    from archdsl.report.prediction_rows import checked_json

    calibration, predictor = made.calibration, made.calibration.predictor
    return {
        "target": predictor.target.as_json(),
        "segments": calibration.segments,
        "segments_measured": calibration.segments_measured,
        "networks": calibration.networks,
        "networks_measured": calibration.networks_measured,
        "left_out_error": predictor.left_out_error,
        "predictions": rows,
        "not_predicted": [
            {"spec": network.spec.name, "hash": network.hash, **why.problems[0].as_json()}
            for network, why in made.refused
        ],
        "check": None if checked is None else checked_json(checked),
    }


def _print(made: Forecast, rows: list[dict[str, Any]], checked: Checked | None) -> None:
    from rich import box
    from rich.table import Table

    from archdsl.report.prediction import middle_of
    from archdsl.report.prediction_rows import quality_rows, reasons_of

    calibration, predictor = made.calibration, made.calibration.predictor
    click.echo(f"on {predictor.target}")
    click.echo(
        f"{calibration.segments} segments ({calibration.segments_measured} of them measured now), "
        f"{calibration.networks} whole networks ({calibration.networks_measured} of them measured now)"
    )
    if predictor.left_out_error is not None:
        click.echo(f"error on each of those networks when it is left out: {predictor.left_out_error:.1%} on average")
    middle = middle_of([prediction for _, prediction in made.predicted])
    if middle is not None:
        span = f"{middle.low_ms:.4g} to {middle.high_ms:.4g} ms, median {middle.median_ms:.4g} ms"
        click.echo(f"{len(made.predicted)} networks predicted: {span}")
    for reason in reasons_of(made):
        click.echo(f"not predicted: {reason}")
    if rows:
        table = Table(box=box.SIMPLE, title="the fastest, as predicted", title_justify="left")
        for name in ("latency", "to the base", "MACs", "params", "differs from the base in"):
            table.add_column(name, justify="left" if name.startswith("differs") else "right")
        for row in rows:
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
            table.add_row(row["shown"], ratio, human(row["macs"]), human(row["params"]), row["differs"])
        print_table(table)
    if checked is not None:
        table = Table(box=box.SIMPLE, title=f"measured afterwards: {len(checked.networks)}", title_justify="left")
        for name in ("predicted by", "mean error", "rank correlation", "in the 90 % interval", "interval's width"):
            table.add_column(name, justify="left" if name == "predicted by" else "right")
        for cells in quality_rows(checked):
            table.add_row(*cells)
        print_table(table)
