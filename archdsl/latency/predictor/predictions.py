"""Predicted latencies of a space's networks, or of some specs beside the first."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.errors import ArchError, MeasureError
from archdsl.events import Listener, ignore
from archdsl.language import Space
from archdsl.language.architecture.model import Spec
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.predictor.calibration import Calibration, Subject, calibrate
from archdsl.latency.predictor.networks import CandidateNetwork, networks_of
from archdsl.latency.predictor.predictor import NetworkSegments, Prediction, predicted_or_why
from archdsl.latency.timing import Timing
from archdsl.runtimes.target import Target


@dataclass(frozen=True)
class Forecast:
    """What is predicted for networks; those that are not have the error that says why."""

    calibration: Calibration
    networks: tuple[CandidateNetwork, ...]
    results: tuple[Prediction | MeasureError, ...]

    @property
    def predicted(self) -> list[tuple[CandidateNetwork, Prediction]]:
        """The fastest first."""
        pairs = zip(self.networks, self.results, strict=True)
        return sorted(((n, p) for n, p in pairs if isinstance(p, Prediction)), key=lambda pair: pair[1].median_ms)

    @property
    def refused(self) -> list[tuple[CandidateNetwork, MeasureError]]:
        pairs = zip(self.networks, self.results, strict=True)
        return [(network, why) for network, why in pairs if isinstance(why, MeasureError)]


def forecast(
    networks: Sequence[CandidateNetwork],
    target: Target,
    *,
    cache: TimingCache | None = None,
    also: Sequence[Spec] = (),
    on_event: Listener = ignore,
    **how: Any,
) -> Forecast:
    """Predictions for `networks`. `also` and `how` go to `latency.predictor.calibration.calibrate`.

    Raises: MeasureError when what it needs cannot be measured
    """
    pairs = [(network.spec, network.parts) for network in networks]
    calibration = calibrate(pairs, target, cache=cache, also=also, on_event=on_event, **how)
    results = [predicted_or_why(calibration.predictor, network.parts) for network in networks]
    return Forecast(calibration, tuple(networks), tuple(results))


@dataclass(frozen=True)
class Beside:
    """A network among others: its timing, its prediction, or why there is neither."""

    network: CandidateNetwork
    result: Timing | Prediction | MeasureError


def beside(
    specs: Sequence[Spec],
    target: Target,
    *,
    cache: TimingCache | None = None,
    on_event: Listener = ignore,
    **how: Any,
) -> list[Beside]:
    """The first network measured (and those whose timing is known), the others predicted from it and their segments.

    A network of the same segments in another order is another network: it is predicted.
    Raises: MeasureError when the first network or a segment cannot be measured
    """
    networks = [CandidateNetwork.of(spec) for spec in specs]
    made = forecast(networks, target, cache=cache, also=specs[:1], num_networks=1, on_event=on_event, **how)
    timings = [one.timing for one in made.calibration.predictor.calibration if one.timing is not None]
    measured = {timing.graph_hash: timing for timing in timings}
    return [
        Beside(network, measured.get(network.hash) or result)
        for network, result in zip(networks, made.results, strict=True)
    ]


def parts_key(parts: NetworkSegments) -> frozenset[tuple[str, int]]:
    """Equal for networks that a predictor cannot distinguish."""
    return frozenset(parts.counts.items())


@dataclass(frozen=True)
class Middle:
    """The fastest, the middle and the slowest of predicted medians, in ms, and of how many networks they are."""

    low_ms: float
    median_ms: float
    high_ms: float
    num_predicted: int


def middle_of(predictions: Sequence[Prediction]) -> Middle | None:
    """The range of predictions; None without any."""
    medians = [prediction.median_ms for prediction in predictions]
    return Middle(min(medians), statistics.median(medians), max(medians), len(medians)) if medians else None


def known_latencies(space: Space, target: Target, cache: TimingCache) -> Middle | None:
    """The range of predicted latencies over a space, from the timing cache alone; None where that does not suffice."""
    try:
        if Subject.call(target).known(target, cache) is None:
            return None  # nothing was ever predicted on this target
        made = forecast(networks_of(space), target, cache=cache, only_known=True)
    except ArchError:
        return None
    return middle_of([prediction for _, prediction in made.predicted])
