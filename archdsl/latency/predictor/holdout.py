"""How good predictions are: networks that were only predicted are measured, and MACs and parameters stand beside."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archdsl.events import Listener, Step, ignore
from archdsl.json_fields import JsonFields
from archdsl.latency.predictor.calibration import MOST_TOGETHER, MOST_WEIGHT_BYTES, Subject, take_together
from archdsl.latency.predictor.networks import CandidateNetwork
from archdsl.latency.predictor.predictions import Forecast, parts_key
from archdsl.latency.predictor.predictor import Calibrated, Prediction
from archdsl.runtimes.target import Target


@dataclass(frozen=True)
class Quality(JsonFields):
    """How well one way of predicting did on networks measured afterwards.

    mape:     mean absolute error, as a share of what was measured
    spearman: rank correlation; None for fewer than three networks
    coverage: how many measurements lay in the stated interval; None where none is stated
    width:    the mean width of the interval, as a share of the prediction
    """

    name: str
    mape: float
    spearman: float | None
    coverage: float | None = None
    width: float | None = None


@dataclass(frozen=True)
class Checked:
    """Held-out networks, what was predicted for each and then measured, and the quality of each way.

    drift: for each group that was measured together, how many times longer its anchor took than in the calibration
    as_measured: our quality without the correction for that
    """

    networks: tuple[CandidateNetwork, ...]
    predictions: tuple[Prediction, ...]
    measured_ms: tuple[float, ...]
    qualities: tuple[Quality, ...]
    as_measured: Quality
    drift: tuple[float, ...]


def hold_out(made: Forecast, count: int, *, seed: int = 0) -> list[tuple[CandidateNetwork, Prediction]]:
    """`count` predicted networks at random that the predictor did not learn from; fewer when there are no more."""
    learnt = {parts_key(one.parts) for one in made.calibration.predictor.calibration}
    free = [pair for pair in made.predicted if parts_key(pair[0].parts) not in learnt]
    return random.Random(seed).sample(free, min(count, len(free)))


def check(
    made: Forecast,
    held: Sequence[tuple[CandidateNetwork, Prediction]],
    target: Target,
    *,
    budget_s: float = 2.0,
    attempts: int = 2,
    on_event: Listener = ignore,
) -> Checked:
    """Measure held-out networks, in groups that are timed interleaved, and compare with what was predicted for them.

    Each group also holds an anchor, the calibration network nearest to the middle: a machine that became slower since
    the calibration made it slower too, and times are divided by that. `as_measured` is without this correction.

    attempts: how often a group is measured at most while others use our cores
    Raises: MeasureError when one cannot be measured; ValueError without held-out networks
    """
    if not held:
        raise ValueError("nothing was held out")
    known = _learnt(made)
    anchor = known[len(known) // 2]
    measured: list[float] = []
    raw: list[float] = []
    drift: list[float] = []
    for group in _groups([network for network, _ in held]):
        on_event(Step(f"checking {len(group)} networks on {target}"))
        subjects = [Subject.network(network.spec, target) for network in group]
        alone = [] if target.is_analytic else [Subject.network(anchor[0].spec, target)]
        timings = take_together([*alone, *subjects], target, budget_s=budget_s, attempts=attempts)
        slower = timings[0].median_ms / anchor[1].median_ms if alone else 1.0
        drift.append(slower)
        raw += [timing.median_ms for timing in timings[len(alone) :]]
        measured += [timing.median_ms / slower for timing in timings[len(alone) :]]
    predictions = [prediction for _, prediction in held]
    qualities = [our_quality(predictions, measured)]
    for name in ("macs", "params"):
        sizes = [getattr(network.cost, name) for network, _ in known]
        line = fitted_line(sizes, [one.median_ms for _, one in known])
        guesses = [line(getattr(network.cost, name)) for network, _ in held]
        qualities.append(Quality(name, mape(guesses, measured), spearman(guesses, measured)))
    return Checked(
        tuple(network for network, _ in held),
        tuple(predictions),
        tuple(measured),
        tuple(qualities),
        our_quality(predictions, raw),
        tuple(drift),
    )


def our_quality(predictions: Sequence[Prediction], measured_ms: Sequence[float]) -> Quality:
    """The quality of the predictor on networks that were measured afterwards, in the order of `predictions`."""
    medians = [prediction.median_ms for prediction in predictions]
    inside = [p.low_ms <= ms <= p.high_ms for p, ms in zip(predictions, measured_ms, strict=True)]
    width = statistics.mean((p.high_ms - p.low_ms) / p.median_ms for p in predictions)
    return Quality(
        "segments", mape(medians, measured_ms), spearman(medians, measured_ms), statistics.mean(inside), width
    )


def mape(guesses: Sequence[float], measured: Sequence[float]) -> float:
    """Mean absolute relative error."""
    return statistics.mean(abs(guess / value - 1) for guess, value in zip(guesses, measured, strict=True))


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The correlation of ranks, equal values having the middle of theirs; None for fewer than three or no variety."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def fitted_line(sizes: Sequence[float], times_ms: Sequence[float]) -> Callable[[float], float]:
    """ms = a + b * size by least squares; in proportion where two points do not make a line."""
    if len(set(sizes)) < 2:
        slope = sum(times_ms) / sum(sizes)
        return lambda size: slope * size
    fit = statistics.linear_regression(sizes, times_ms)
    return lambda size: fit.intercept + fit.slope * size


def _learnt(made: Forecast) -> list[tuple[CandidateNetwork, Calibrated]]:
    """The calibration networks that are among the networks, the fastest first."""
    by_parts = {parts_key(network.parts): network for network in made.networks}
    learnt = sorted(made.calibration.predictor.calibration, key=lambda one: one.median_ms)
    return [(by_parts[key], one) for one in learnt if (key := parts_key(one.parts)) in by_parts]


def _groups(networks: Sequence[CandidateNetwork]) -> list[list[CandidateNetwork]]:
    """In order, as many together as a worker holds beside the anchor."""
    groups: list[list[CandidateNetwork]] = []
    for network in networks:
        weight = 4 * sum(each.cost.params for each in groups[-1]) if groups else 0
        if not groups or len(groups[-1]) + 1 >= MOST_TOGETHER or weight + 8 * network.cost.params > MOST_WEIGHT_BYTES:
            groups.append([])
        groups[-1].append(network)
    return groups
