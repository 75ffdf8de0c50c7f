"""Latencies that a study knows before it measures them, so that it can propose with them.

A computed latency is known exactly. For what is measured, a predictor learns from segments and a few whole networks
when the study begins (`latency.predictor`); it is kept in the study, so that every worker and every resumed process
foresees the same. A network that the predictor does not reach simply has no foreseen latency, nor has any when learning
failed: then the sampler guesses, and the search goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from archdsl.compiler import compile
from archdsl.errors import ArchError
from archdsl.latency import Target, TimingCache
from archdsl.latency.predictor.calibration import MOST_SEGMENTS, NETWORKS, Calibration, calibrate, choose_segments
from archdsl.latency.predictor.networks import Network, networks_of
from archdsl.latency.predictor.predictor import Parts, Prediction, Predictor, predicted_or_why
from archdsl.latency.runtimes.null import analytic_ms
from archdsl.passes.drop_train_only import drop_train_only
from archdsl.passes.segments import work_of
from archdsl.spec import Space
from archdsl.spec.model import Spec
from archdsl.study.crew.device_turn import device_turn
from archdsl.study.objectives import named
from archdsl.study.storage.once import Once

NAME = "foresight"
"""What it is called among the study's attributes."""
SCHEMA = 1
FEWEST_TRIALS = 8
"""A shorter study is over before a proposal gains from it."""
SEGMENT_S = 0.1
"""Seconds of timed runs of a segment; what is left to doubt goes into the interval."""

Say = Callable[[str], None]


class Effort(NamedTuple):
    """What is timed to learn a target's latencies: at most so many segments, a call included, and whole networks."""

    segments: int
    networks: int

    @classmethod
    def for_trials(cls, trials: int) -> Effort | None:
        """In proportion to what a study pays for: two segments a network, a whole network for each five.

        In the quickstart, where a network takes some 4 s, that was 14 s of 82: 32 segments and 3 whole networks. These
        have the budget that any network of the study has, so one that is tried later is not timed again. From 40 trials
        on it is no more, whatever they train. None: not worth while
        """
        if trials < FEWEST_TRIALS:
            return None
        return cls(min(MOST_SEGMENTS, 2 * trials), min(NETWORKS, max(2, trials // 5)))


@dataclass(frozen=True)
class Latencies:
    """What is foreseen of a network: values by the study's names, and where they are estimates, their intervals."""

    values: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Foresight:
    """The foreseen latencies (and throughputs) of one study.

    targets: by label, those whose latency or throughput counts
    effort: for targets that are measured; None: nothing is learnt of them
    network_s: seconds of timed runs of a whole network: those of the study's own measurements, which then know it
    told: after `prepare`, for each latency that is measured: for how many networks it is foreseen and from what, or why
        for none
    """

    def __init__(
        self,
        space: Space,
        targets: Mapping[str, Target],
        *,
        effort: Effort | None = None,
        cache: TimingCache | None = None,
        network_s: float = 2.0,
        seed: int = 0,
    ):
        self.space, self.targets, self.effort, self.cache = space, dict(targets), effort, cache
        self.network_s, self.seed = network_s, seed
        self.told: dict[str, str] = {}
        self._predictors: dict[str, Predictor] = {}
        self._found: dict[str, Latencies] = {}

    def prepare(self, once: Once, say: Say) -> None:
        """Learn, unless the study knows it already: it takes seconds, or minutes for large networks.

        say: told what is learnt while it is
        Errors: Interrupted, and then nothing is kept; what fails otherwise is `told`
        """
        measured = {label: target for label, target in self.targets.items() if not target.is_analytic}
        if not measured:
            return
        effort = self.effort
        if effort is None:  # but a study that was longer may have learnt
            kept = once.kept(NAME)
        else:
            kept = once(NAME, lambda: {"schema": SCHEMA, "targets": self._learnt(measured, effort, say)})
        if effort is not None or kept is not None:
            self._take_up(kept if isinstance(kept, Mapping) else {})

    def of(self, spec: Spec, hash: str) -> Latencies:
        """What is foreseen of a network. hash: its canonical one; a network is looked at once

        Errors: SpecError, ShapeError when the spec is none
        """
        if hash not in self._found:
            self._found[hash] = self._foreseen(spec)
        return self._found[hash]

    def _foreseen(self, spec: Spec) -> Latencies:
        values: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        parts = Parts.of(spec) if self._predictors else None
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
        return Latencies(values, intervals)

    # --- learning -------------------------------------------------------------------------------------------------

    def _learnt(self, measured: Mapping[str, Target], effort: Effort, say: Say) -> dict[str, Any]:
        """What the study keeps of each target: a predictor, or why there is none."""
        found: dict[str, Any] = {}
        networks: list[Network] = []
        for label, target in measured.items():
            begun = time.monotonic()
            try:
                networks = networks or networks_of(self.space, seed=self.seed)
                made = self._calibrated(networks, target, effort, say)
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
            except ArchError as error:
                found[label] = {"why_not": error.problems[0].message.splitlines()[0][:300]}
            except Exception as error:  # of whatever library is beneath: no search ends because of this
                found[label] = {"why_not": f"{type(error).__name__}: {error}"[:300]}
        return found

    def _calibrated(self, networks: list[Network], target: Target, effort: Effort, say: Say) -> Calibration:
        num_segments = 1 + len(choose_segments([network.parts for network in networks], effort.segments - 1))
        say(f"learning latencies on {target.runtime}: {num_segments} segments, {effort.networks} networks")
        with device_turn(target.device):
            return calibrate(
                [(network.spec, network.parts) for network in networks],
                target,
                cache=self.cache,
                num_networks=effort.networks,
                most_segments=effort.segments,
                segment_s=SEGMENT_S,
                network_s=self.network_s,
                attempts=1,  # what a disturbed time is off by goes into the interval; a trial takes its own again
            )

    def _take_up(self, kept: Mapping[str, Any]) -> None:
        """Take what the study keeps, whoever has learnt it."""
        targets = kept.get("targets") if kept.get("schema") == SCHEMA else None
        for label, target in self.targets.items():
            if target.is_analytic:
                continue
            said = targets.get(label) if isinstance(targets, Mapping) else None
            name = named("latency", label)
            try:
                if not isinstance(said, Mapping):
                    raise ValueError("what the study keeps of it was written by another version")
                if "why_not" in said:
                    raise ValueError(said["why_not"])
                self._predictors[label] = Predictor.from_json(said["predictor"])
                self.told[name] = _told(said, target)
            except (KeyError, TypeError, ValueError) as error:
                self.told[name] = f"no, {error}"
        self._found.clear()


def _told(said: Mapping[str, Any], target: Target) -> str:
    error = said["left_out_error"]
    off = "" if error is None else f", {error:.1%} off when one of these is left out"
    whole = f"{said['foreseen']} of {said['looked_at']} networks"
    return f"of {whole}, from {said['segments']} segments and {said['networks']} networks on {target}{off}"


def _computed_ms(spec: Spec, target: Target) -> float:
    """What the runtime `null` will say."""
    costs = work_of(drop_train_only(compile(spec)))
    return analytic_ms(costs.macs, costs.bytes_read + costs.bytes_written, target.batch, target.threads)


def _rate(target: Target, batch_ms: float) -> float:
    """Images a second."""
    return target.batch * 1000 / batch_ms if batch_ms > 0 else float("inf")
