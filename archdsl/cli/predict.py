"""`archdsl predict`: how long would each network of a space take, from the times of their segments?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli import options
from archdsl.cli.output import echo_step, print_json, print_rows, say
from archdsl.cli.parameters import SpecName
from archdsl.cli.targets import target_of
from archdsl.errors import ArchError
from archdsl.events import Step
from archdsl.language import Space, load_any
from archdsl.language.text.files import StandardInput
from archdsl.language.text.quantities import count_text
from archdsl.latency import close_workers
from archdsl.runtimes.target import resolve

if TYPE_CHECKING:
    from archdsl.latency.predictor.holdout import Checked
    from archdsl.latency.predictor.predictions import Forecast

PER_NETWORK = 4
"""Seconds for a whole network, for each second for a segment."""


@click.command(
    epilog="Examples: archdsl predict quickstart --top 5 · archdsl predict search/swin_free_imagenet.yaml --check 40"
)
@click.argument("space", metavar="SPACE", type=SpecName())
@click.option("--on", "runtime", default="onnxruntime", show_default=True, help="The runtime; one that takes ONNX.")
@options.device
@click.option("--precision", default="fp32", show_default=True)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 65536), help="Images at once.")
@options.threads
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
@options.overrides
@options.as_json
def predict(
    space: str | StandardInput,
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
    from archdsl.files import check_place, write_file
    from archdsl.latency.cache.timings import TimingCache
    from archdsl.latency.predictor.holdout import check, hold_out
    from archdsl.latency.predictor.networks import CandidateNetwork, networks_of
    from archdsl.latency.predictor.predictions import forecast
    from archdsl.report.prediction_rows import csv_of, differences, rows_of

    loaded = _space(space, overrides)
    target = target_of(runtime, device, precision=precision, batch=batch, threads=threads)
    resolve(target)  # raises for what is missing, before anything is timed
    if csv_path is not None:
        check_place(csv_path)

    try:
        echo_step(Step(f"looking at {loaded.name}"))
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
            on_event=echo_step,
        )
        held = hold_out(made, num_checked, seed=seed)
        if len(held) < num_checked:
            left = "no network is" if not held else f"only {len(held)} network{'s are' if len(held) > 1 else ' is'}"
            say(f"{left} left to check: the others that are predicted were learnt from", err=True)
        checked = check(made, held, target, budget_s=PER_NETWORK * seconds, on_event=echo_step) if held else None
    finally:
        close_workers()
    base = CandidateNetwork.of(loaded.base, loaded.assignment_of(loaded.base) or {})
    rows = rows_of(made, base, differences(loaded, base))
    if as_json:
        print_json(_facts(made, rows, checked))
    else:
        _print(made, rows[:top], checked)
    if csv_path is not None:
        write_file(csv_path, csv_of(rows))
        if not as_json:
            say(f"written to {csv_path}")
    return 0


def _space(name: str | StandardInput, overrides: tuple[str, ...]) -> Space:
    """Errors: SpecError where there is no such space; ArchError for a single spec"""
    loaded = load_any(name, set=overrides)
    if isinstance(loaded, Space):
        return loaded
    message = f"{name} is one network, and predict is about a space of them"
    hint = f"`archdsl bench {name}` measures it; `archdsl bench A B C --predict` predicts B and C"
    raise ArchError.at("SPACE", str(name), "not-a-space", message, hint)


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
    from archdsl.latency.predictor.predictions import middle_of
    from archdsl.report.prediction_rows import quality_rows, reasons_of

    calibration, predictor = made.calibration, made.calibration.predictor
    say(f"on {predictor.target}")
    say(
        f"{calibration.segments} segments ({calibration.segments_measured} of them measured now), "
        f"{calibration.networks} whole networks ({calibration.networks_measured} of them measured now)"
    )
    if predictor.left_out_error is not None:
        say(f"error on each of those networks when it is left out: {predictor.left_out_error:.1%} on average")
    middle = middle_of([prediction for _, prediction in made.predicted])
    if middle is not None:
        span = f"{middle.low_ms:.4g} to {middle.high_ms:.4g} ms, median {middle.median_ms:.4g} ms"
        say(f"{len(made.predicted)} networks predicted: {span}")
    for reason in reasons_of(made):
        say(f"not predicted: {reason}")
    if rows:
        numbers = ("latency", "to the base", "MACs", "params")
        cells = [
            (
                row["shown"],
                "" if row["ratio"] is None else f"{row['ratio']:.3f}",
                count_text(row["macs"]),
                count_text(row["params"]),
                row["differs"],
            )
            for row in rows
        ]
        differs = "differs from the base in"
        title = "the fastest, as predicted"
        print_rows((*numbers, differs), cells, right=numbers, prose=(differs,), title=title)
    if checked is not None:
        numbers = ("mean error", "rank correlation", "in the 90 % interval", "interval's width")
        title = f"measured afterwards: {len(checked.networks)}"
        print_rows(("predicted by", *numbers), quality_rows(checked), right=numbers, title=title)
