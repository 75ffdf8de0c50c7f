"""The part of `archdsl bench` that predicts: the first network is measured, the others follow from their segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archdsl.cli.output import echo_step, print_json, print_rows, say
from archdsl.cli.targets import echo_missing, together, why
from archdsl.errors import ArchError, MeasureError
from archdsl.language.architecture.model import Spec
from archdsl.language.text.quantities import count_text
from archdsl.latency import Timing, TimingCache, close_workers
from archdsl.runtimes.target import Target

if TYPE_CHECKING:
    from archdsl.latency.predictor.predictions import Beside

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
            hint = f"leave out --predict, or `{option} {value}`".replace("bench ", "")
            raise ArchError.at("--predict", f"{option} {value}", "usage", message, hint)
    from archdsl.latency.predictor.predictions import beside

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
                    on_event=echo_step,
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
    echo_missing([(str(target), why(error)) for target, error in errors.items()], skipped)
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
    rows = []
    for row in results:
        target = row["target"]
        where = target["runtime"] + ("" if target["device"] == "cpu" else f" on {target['device']}")
        rows.append(
            (row["spec"], where, target["precision"], str(target["batch"]), row["shown"], count_text(row["macs"]))
        )
    right = ("precision", "batch", "latency", "MACs")
    common, optional = ("runtime", "precision", "batch"), ("MACs",)
    print_rows(("spec", "runtime", *right), rows, right=right, common=common, optional=optional)
    say("≈ is predicted, and the range what a measurement would show nine times in ten; nothing else ran")
