"""Predicted latencies of a space's networks, and how good they are: ours beside MACs and parameters as predictors."""

from __future__ import annotations

import csv
import io
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from archdsl.compiler import SpecCost, cost, identity
from archdsl.errors import ArchError, MeasureError, Problem, at_argument
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.predictor.calibration import (
    MOST_TOGETHER,
    MOST_WEIGHT_BYTES,
    Calibration,
    Subject,
    calibrate,
    take_together,
)
from archdsl.latency.predictor.predictor import Calibrated, Parts, Prediction, predicted_or_why
from archdsl.latency.target import Target
from archdsl.latency.timing import Timing
from archdsl.spec import Space
from archdsl.spec.model import Spec

ALL_UP_TO = 512
"""Settings of a space that are all looked at; of a larger one a sample is."""
SAMPLED = 200

Say = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """A network of a space: what its knobs are set to, and what it costs and is made of."""

    picks: Mapping[str, int]
    spec: Spec
    hash: str
    parts: Parts
    cost: SpecCost

    @classmethod
    def of(cls, spec: Spec, picks: Mapping[str, int] | None = None) -> Network:
        return cls(dict(picks or {}), spec, identity(spec, training=False), Parts.of(spec), cost(spec))


def networks_of(space: Space, *, sample: int | None = None, seed: int = 0) -> list[Network]:
    """Distinct networks of a space that keep its bounds of parameters and MACs, its base and starts first.

    sample: at most so many, drawn at random; by default all of a space with up to ALL_UP_TO settings, else SAMPLED

    Errors: ArchError when no setting is a valid network
    """
    whole = sample is None and space.num_total <= ALL_UP_TO
    most = space.num_total if whole else sample or SAMPLED
    rng = random.Random(seed)
    first = [picks for picks in (space.picks_of(space.base), *(start.picks for start in space.start)) if picks]
    drawn = space.iterate() if whole else (space.sample(rng) for _ in range(20 * most))
    found: dict[str, Network] = {}
    for picks in (*first, *drawn):
        if len(found) >= most:
            break
        try:
            network = Network.of(space.spec(picks, check=False), picks)
        except ArchError:
            continue
        if network.hash not in found and _keeps_bounds(space, network.cost):
            found[network.hash] = network
    if not found:
        message = f"no network of {space.name} was found that keeps its bounds of params and macs"
        raise ArchError(
            Problem(at_argument("SPACE", space.name), "empty-space", message, "widen `constraints`, or draw more")
        )
    return list(found.values())


def _keeps_bounds(space: Space, costs: SpecCost) -> bool:
    from archdsl.study.candidate import violation  # brings Optuna, which `archdsl show` can do without

    values = {"params": costs.params, "macs": costs.macs}
    bounds = {name: getattr(space.constraints, name, None) for name in values}
    return all(bound is None or violation(values[name], bound) <= 0 for name, bound in bounds.items())


@dataclass(frozen=True)
class Forecast:
    """What is predicted for networks; those that are not have the error that says why."""

    calibration: Calibration
    networks: tuple[Network, ...]
    results: tuple[Prediction | MeasureError, ...]

    @property
    def predicted(self) -> list[tuple[Network, Prediction]]:
        """The fastest first."""
        pairs = zip(self.networks, self.results, strict=True)
        return sorted(((n, p) for n, p in pairs if isinstance(p, Prediction)), key=lambda pair: pair[1].median_ms)

    @property
    def refused(self) -> list[tuple[Network, MeasureError]]:
        pairs = zip(self.networks, self.results, strict=True)
        return [(network, why) for network, why in pairs if isinstance(why, MeasureError)]


def forecast(
    networks: Sequence[Network],
    target: Target,
    *,
    cache: TimingCache | None = None,
    also: Sequence[Spec] = (),
    say: Say = lambda message: None,
    **how: Any,
) -> Forecast:
    """Predictions for `networks`. `also` and `how` go to `latency.predictor_calibration.calibrate`.

    Errors: MeasureError when what it needs cannot be measured
    """
    pairs = [(network.spec, network.parts) for network in networks]
    calibration = calibrate(pairs, target, cache=cache, also=also, say=say, **how)
    results = [predicted_or_why(calibration.predictor, network.parts) for network in networks]
    return Forecast(calibration, tuple(networks), tuple(results))


@dataclass(frozen=True)
class Beside:
    """A network among others: its timing, its prediction, or why there is neither."""

    network: Network
    result: Timing | Prediction | MeasureError


def beside(
    specs: Sequence[Spec],
    target: Target,
    *,
    cache: TimingCache | None = None,
    say: Say = lambda message: None,
    **how: Any,
) -> list[Beside]:
    """The first network measured (and those whose timing is known), the others predicted from it and their segments.

    Errors: MeasureError when the first network or a segment cannot be measured
    """
    networks = [Network.of(spec) for spec in specs]
    made = forecast(networks, target, cache=cache, also=specs[:1], num_networks=1, say=say, **how)
    measured = {_key(one.parts): one.timing for one in made.calibration.predictor.calibration}
    return [
        Beside(network, measured.get(_key(network.parts)) or result)
        for network, result in zip(networks, made.results, strict=True)
    ]


def _key(parts: Parts) -> frozenset[tuple[str, int]]:
    """Equal for networks that a predictor cannot tell apart."""
    return frozenset(parts.counts.items())


@dataclass(frozen=True)
class Middle:
    """The fastest, the middle and the slowest of predicted medians, in ms."""

    low_ms: float
    median_ms: float
    high_ms: float


def middle_of(predictions: Sequence[Prediction]) -> Middle | None:
    medians = [prediction.median_ms for prediction in predictions]
    return Middle(min(medians), statistics.median(medians), max(medians)) if medians else None


def known_latencies(space: Space, target: Target, cache: TimingCache) -> Middle | None:
    """The range of predicted latencies over a space, from the timing cache alone; None where that does not suffice."""
    try:
        if Subject.call(target).known(target, cache) is None:
            return None  # nothing was ever predicted on this target
        made = forecast(networks_of(space), target, cache=cache, only_known=True)
    except ArchError:
        return None
    return middle_of([prediction for _, prediction in made.predicted])


def reasons_of(made: Forecast) -> list[str]:
    """Why networks are not predicted, a sentence for each reason, with the most frequent case of it."""
    by_rule: dict[str, list[str]] = {}
    for _, why in made.refused:
        by_rule.setdefault(why.problems[0].rule, []).append(why.problems[0].message)
    found = []
    for rule, messages in by_rule.items():
        most = max(set(messages), key=lambda message: (messages.count(message), message))
        found.append(f"{len(messages)} networks [{rule}], such as: {most}")
    if "unknown-segment" in by_rule:
        needed = 1 + len({key for n in made.networks for key, s in n.parts.segments.items() if not s.only_moves})
        found.append(f"all networks have {needed} segments, and those that only move tokens: `--segments` allows more")
    return found


# --- how good it is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """Held-out networks, what was predicted for each and then measured, and the quality of each way.

    drift: for each group that was measured together, how many times longer its anchor took than in the calibration
    as_measured: our quality without the correction for that
    """

    networks: tuple[Network, ...]
    predictions: tuple[Prediction, ...]
    measured_ms: tuple[float, ...]
    qualities: tuple[Quality, ...]
    as_measured: Quality
    drift: tuple[float, ...]


def hold_out(made: Forecast, count: int, *, seed: int = 0) -> list[tuple[Network, Prediction]]:
    """`count` predicted networks at random that the predictor did not learn from; fewer when there are no more."""
    learnt = {_key(one.parts) for one in made.calibration.predictor.calibration}
    free = [pair for pair in made.predicted if _key(pair[0].parts) not in learnt]
    return random.Random(seed).sample(free, min(count, len(free)))


def check(
    made: Forecast,
    held: Sequence[tuple[Network, Prediction]],
    target: Target,
    *,
    budget_s: float = 2.0,
    attempts: int = 2,
    say: Say = lambda message: None,
) -> Checked:
    """Measure held-out networks, in groups whose members take turns, and compare with what was predicted for them.

    Each group also holds an anchor, the calibration network nearest to the middle: a machine that became slower since
    the calibration made it slower too, and times are divided by that. `as_measured` is without this correction.

    attempts: how often a group is measured at most while others use our cores
    Errors: MeasureError when one cannot be measured; ValueError without held-out networks
    """
    if not held:
        raise ValueError("nothing was held out")
    anchor = _anchor(made)
    measured: list[float] = []
    raw: list[float] = []
    drift: list[float] = []
    for group in _groups([network for network, _ in held]):
        say(f"checking {len(group)} networks on {target}")
        subjects = [Subject.network(network.spec, target) for network in group]
        alone = [] if target.is_analytic else [Subject.network(anchor[0].spec, target)]
        timings = take_together([*alone, *subjects], target, budget_s=budget_s, attempts=attempts)
        slower = timings[0].median_ms / anchor[1].median_ms if alone else 1.0
        drift.append(slower)
        raw += [timing.median_ms for timing in timings[len(alone) :]]
        measured += [timing.median_ms / slower for timing in timings[len(alone) :]]
    predictions = [prediction for _, prediction in held]
    qualities = [our_quality(predictions, measured)]
    learnt = made.calibration.predictor.calibration
    by_parts = {_key(network.parts): network for network in made.networks}
    known = [(by_parts[key], one) for one in learnt if (key := _key(one.parts)) in by_parts]
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
    return statistics.correlation(_ranks(a), _ranks(b))


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def fitted_line(sizes: Sequence[float], times_ms: Sequence[float]) -> Callable[[float], float]:
    """ms = a + b * size by least squares; in proportion where two points do not make a line."""
    if len(set(sizes)) < 2:
        slope = sum(times_ms) / sum(sizes)
        return lambda size: slope * size
    fit = statistics.linear_regression(sizes, times_ms)
    return lambda size: fit.intercept + fit.slope * size


def _anchor(made: Forecast) -> tuple[Network, Calibrated]:
    """The calibration network of middle length that is among the networks."""
    by_parts = {_key(network.parts): network for network in made.networks}
    learnt = sorted(made.calibration.predictor.calibration, key=lambda one: one.median_ms)
    known = [(by_parts[key], one) for one in learnt if (key := _key(one.parts)) in by_parts]
    return known[len(known) // 2]


def _groups(networks: Sequence[Network]) -> list[list[Network]]:
    """In order, as many together as a worker holds beside the anchor."""
    groups: list[list[Network]] = []
    for network in networks:
        weight = 4 * sum(each.cost.params for each in groups[-1]) if groups else 0
        if not groups or len(groups[-1]) + 1 >= MOST_TOGETHER or weight + 8 * network.cost.params > MOST_WEIGHT_BYTES:
            groups.append([])
        groups[-1].append(network)
    return groups


# --- facts for printing ---------------------------------------------------------------------------------------------


def rows_of(made: Forecast, base: Network | None = None, differs: Callable[[Network], str] | None = None) -> list[Any]:
    """Facts of each predicted network, the fastest first; `ratio` is to the base's prediction where there is one."""
    by_hash = {network.hash: prediction for network, prediction in made.predicted}
    reference = by_hash.get(base.hash) if base else None
    return [
        {
            "spec": network.spec.name,
            "hash": network.hash,
            "differs": differs(network) if differs else "",
            **prediction.as_json(),
            "ratio": prediction.median_ms / reference.median_ms if reference else None,
            "macs": network.cost.macs,
            "params": network.cost.params,
        }
        for network, prediction in made.predicted
    ]


def differences(space: Space, base: Network) -> Callable[[Network], str]:
    """What a network sets otherwise than the base, in the words of the space: `stages.0.window=14, …`."""
    knobs = {knob.name: knob for knob in space.knobs}

    def differs(network: Network) -> str:
        changed = [name for name, index in network.picks.items() if base.picks.get(name) != index]
        return ", ".join(f"{name}={knobs[name].options[network.picks[name]]}" for name in changed) or "the base"

    return differs


NAMES = {"segments": "segments", "macs": "MACs, a line", "params": "parameters, a line"}


def quality_rows(checked: Checked) -> list[tuple[str, ...]]:
    """One row for each way of predicting: name, mean error, rank correlation, coverage, width."""
    return [
        (
            NAMES[quality.name],
            f"{quality.mape:.1%}",
            "" if quality.spearman is None else f"{quality.spearman:.3f}",
            "" if quality.coverage is None else f"{quality.coverage:.0%}",
            "" if quality.width is None else f"{quality.width:.1%}",
        )
        for quality in checked.qualities
    ]


def checked_json(checked: Checked) -> dict[str, Any]:
    """What was held out and how well it was predicted, for `--json`."""
    triples = zip(checked.networks, checked.predictions, checked.measured_ms, strict=True)
    return {
        "qualities": [quality.as_json() for quality in checked.qualities],
        "without_drift_correction": checked.as_measured.as_json(),
        "drift": list(checked.drift),
        "networks": [
            {"hash": network.hash, **prediction.as_json(), "measured_ms": ms} for network, prediction, ms in triples
        ],
    }


COLUMNS = ("median_ms", "low_ms", "high_ms", "level", "ratio", "macs", "params", "hash", "differs")


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows_of` as CSV with a line of names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("predicted_" + name if name.endswith("_ms") else name for name in COLUMNS)
    writer.writerows([row[name] for name in COLUMNS] for row in rows)
    return text.getvalue()
