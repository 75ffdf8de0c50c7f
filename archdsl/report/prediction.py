"""Predicted latencies of a space's networks, or of some specs beside the first."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.compiler import SpecCost, cost, identity
from archdsl.errors import ArchError, MeasureError, Problem, at_argument
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.predictor.calibration import Calibration, Subject, calibrate
from archdsl.latency.predictor.predictor import Parts, Prediction, predicted_or_why
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
    """Predictions for `networks`. `also` and `how` go to `latency.predictor.calibration.calibrate`.

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
    measured = {parts_key(one.parts): one.timing for one in made.calibration.predictor.calibration}
    return [
        Beside(network, measured.get(parts_key(network.parts)) or result)
        for network, result in zip(networks, made.results, strict=True)
    ]


def parts_key(parts: Parts) -> frozenset[tuple[str, int]]:
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
