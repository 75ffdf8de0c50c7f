"""Predicted latencies: what a study knows of a network's latency before it is measured, so that proposals can use it.

A computed latency (runtime `null`) is known exactly. For measured ones, a predictor learns from segments and a few
whole networks when the study begins (`latency.predictor`). It is stored in the study, so that every worker and every
resumed process predicts the same. A network that the predictor does not cover has no predicted latency; none has when
learning failed. Then the sampler's own model estimates it, and the search continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from archdsl.compiler import compile
from archdsl.language import Space
from archdsl.language.architecture.model import Spec
from archdsl.latency import TimingCache
from archdsl.latency.predictor.calibration import MOST_SEGMENTS, NETWORKS, Calibration, calibrate, choose_segments
from archdsl.latency.predictor.networks import CandidateNetwork, networks_of
from archdsl.latency.predictor.predictor import NetworkSegments, Prediction, Predictor, predicted_or_why
from archdsl.latency.sampling import BUDGET_S
from archdsl.passes.drop_train_only import drop_train_only
from archdsl.passes.segments import work_of
from archdsl.runtimes.adapters.null import analytic_ms
from archdsl.runtimes.target import Target
from archdsl.study.objectives import named
from archdsl.study.record import reason_of
from archdsl.study.storage.shared_results import SharedResults
from archdsl.telemetry.device_lock import device_lock

NAME = "foresight"
"""The name of the shared result in the study."""
SCHEMA = 1
FEWEST_TRIALS = 8
"""A shorter study ends before proposals gain from it."""
SEGMENT_S = 0.1
"""Seconds of timed runs of a segment; the noise that is left widens the interval."""

OnStep = Callable[[str], None]


class Effort(NamedTuple):
    """The number of segments, an empty call included, and of whole networks that are measured to learn a target."""

    segments: int
    networks: int

    @classmethod
    def for_trials(cls, trials: int) -> Effort | None:
        """In proportion to a study's trials: two segments for each, a whole network for each five.

        In the quickstart, where a network takes some 4 s, that was 14 s of 82: 32 segments and 3 whole networks. Whole
        networks are measured with the budget of a trial, so one that is proposed later is not measured again. From 40
        trials on the effort is constant.

        Returns: None where learning does not pay
        """
        if trials < FEWEST_TRIALS:
            return None
        return cls(min(MOST_SEGMENTS, 2 * trials), min(NETWORKS, max(2, trials // 5)))


@dataclass(frozen=True)
class Estimates:
    """What is predicted of a network: values by the study's names, and for those that are not exact, intervals."""

    values: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class PredictedLatencies:
    """The predicted latencies (ms) and throughputs (images/s) of one study.

    Args:
        targets: by label, those whose latency or throughput counts
        effort: for targets that are measured; None: nothing is learnt of them
        network_s: seconds of timed runs of a whole network: as in the study's own measurements, which then reuse it

    notes: after `prepare`, for each measured latency: for how many networks it is predicted and from what, or why not
    """

    def __init__(
        self,
        space: Space,
        targets: Mapping[str, Target],
        *,
        effort: Effort | None = None,
        cache: TimingCache | None = None,
        network_s: float = BUDGET_S,
        seed: int = 0,
    ):
        self.space, self.targets, self.effort, self.cache = space, dict(targets), effort, cache
        self.network_s, self.seed = network_s, seed
        self.notes: dict[str, str] = {}
        self._predictors: dict[str, Predictor] = {}
        self._found: dict[str, Estimates] = {}

    def prepare(self, shared: SharedResults, on_step: OnStep) -> None:
        """Learn, unless the study has the result: it takes seconds, or minutes for large networks.

        Args: on_step: called with a text when learning a target begins
        Raises: Interrupted, and then nothing is stored; other failures become `notes`
        """
        measured = {label: target for label, target in self.targets.items() if not target.is_analytic}
        if not measured:
            return
        effort = self.effort
        if effort is None:  # but a study that was longer may have learnt
            stored = shared.read(NAME)
        else:
            stored = shared.compute_once(
                NAME, lambda: {"schema": SCHEMA, "targets": self._learnt(measured, effort, on_step)}
            )
        if effort is not None or stored is not None:
            self.load(stored if isinstance(stored, Mapping) else {})

    def of(self, spec: Spec, hash: str) -> Estimates:
        """What is predicted of a network; it is computed once for each.

        Args: hash: the network's canonical one
        Raises: SpecError, ShapeError when the spec is invalid
        """
        if hash not in self._found:
            self._found[hash] = self._predict(spec)
        return self._found[hash]

    def _predict(self, spec: Spec) -> Estimates:
        values: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        parts = NetworkSegments.of(spec) if self._predictors else None
        for label, target in self.targets.items():
            latency, throughput = named("latency", label), named("throughput", label)
            if target.is_analytic:
                values[latency] = _computed_ms(spec, target)
                values[throughput] = _rate(target, values[latency])
            elif label in self._predictors and parts is not None:
                predicted = predicted_or_why(self._predictors[label], parts)
                if isinstance(predicted, Prediction):
                    values[latency] = predicted.median_ms
                    values[throughput] = _rate(target, predicted.median_ms)
                    intervals[latency] = predicted.low_ms, predicted.high_ms
                    intervals[throughput] = _rate(target, predicted.high_ms), _rate(target, predicted.low_ms)
        return Estimates(values, intervals)

    # --- learning -------------------------------------------------------------------------------------------------

    def _learnt(self, measured: Mapping[str, Target], effort: Effort, on_step: OnStep) -> dict[str, Any]:
        """What is stored for each target: a predictor, or why there is none."""
        found: dict[str, Any] = {}
        networks: list[CandidateNetwork] = []
        for label, target in measured.items():
            begun = time.monotonic()
            try:
                networks = networks or networks_of(self.space, seed=self.seed)
                made = self._calibrated(networks, target, effort, on_step)
                reached = [predicted_or_why(made.predictor, network.parts) for network in networks]
                found[label] = {
                    "predictor": made.predictor.as_json(),
                    "segments": made.segments,
                    "networks": made.networks,
                    "left_out_error": made.predictor.left_out_error,
                    "foreseen": sum(isinstance(one, Prediction) for one in reached),
                    "looked_at": len(networks),
                    "seconds": round(time.monotonic() - begun, 1),
                }
            except Exception as error:  # of any library below: a search does not end because of this
                found[label] = {"why_not": reason_of(error)[:300]}
        return found

    def _calibrated(
        self, networks: list[CandidateNetwork], target: Target, effort: Effort, on_step: OnStep
    ) -> Calibration:
        num_segments = 1 + len(choose_segments([network.parts for network in networks], effort.segments - 1))
        on_step(f"learning latencies on {target.runtime}: {num_segments} segments, {effort.networks} networks")
        with device_lock(target.device):
            return calibrate(
                [(network.spec, network.parts) for network in networks],
                target,
                cache=self.cache,
                num_networks=effort.networks,
                most_segments=effort.segments,
                segment_s=SEGMENT_S,
                network_s=self.network_s,
                attempts=1,  # noise widens the interval; a trial measures again
            )

    def load(self, stored: Mapping[str, Any]) -> None:
        """Load what the study stores of each target, and say in `notes` what there is."""
        targets = stored.get("targets") if stored.get("schema") == SCHEMA else None
        for label, target in self.targets.items():
            if target.is_analytic:
                continue
            learnt = targets.get(label) if isinstance(targets, Mapping) else None
            name = named("latency", label)
            try:
                if not isinstance(learnt, Mapping):
                    raise ValueError("what the study stores of it was written by another version")
                if "why_not" in learnt:
                    raise ValueError(learnt["why_not"])
                self._predictors[label] = Predictor.from_json(learnt["predictor"])
                self.notes[name] = _note(learnt, target)
            except (KeyError, TypeError, ValueError) as error:
                self.notes[name] = f"no, {error}"
        self._found.clear()


def _note(learnt: Mapping[str, Any], target: Target) -> str:
    error = learnt["left_out_error"]
    off = "" if error is None else f", {error:.1%} off when one of these is left out"
    whole = f"{learnt['foreseen']} of {learnt['looked_at']} networks"
    return f"of {whole}, from {learnt['segments']} segments and {learnt['networks']} networks on {target}{off}"


def _computed_ms(spec: Spec, target: Target) -> float:
    """The latency that the runtime `null` computes, in ms."""
    costs = work_of(drop_train_only(compile(spec)))
    return analytic_ms(costs.macs, costs.bytes_read + costs.bytes_written, target.batch, target.threads)


def _rate(target: Target, batch_ms: float) -> float:
    """Images a second."""
    return target.batch * 1000 / batch_ms if batch_ms > 0 else float("inf")
