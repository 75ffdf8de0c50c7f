"""From picks to values: the network first, then what is cheap, then the latency, then the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from archdsl import compiler
from archdsl.latency import Timing
from archdsl.spec.aims import MEASURED
from archdsl.spec.model import Spec
from archdsl.study.events import Listener, Noted, Preparing
from archdsl.study.foresight import Foresight, Latencies
from archdsl.study.halving import Halving, train
from archdsl.study.objectives import BadValues, Objective, named
from archdsl.study.record import Record
from archdsl.study.storage.once import Once
from archdsl.training import Accuracy, Evaluator
from archdsl.training.evaluator import Stepwise


class SpecsByPicks(Protocol):
    """What is needed of a space here."""

    def spec(self, picks: Mapping[str, int]) -> Spec: ...


class Bounds(Protocol):
    """At least `min`, at most `max`; None is no limit."""

    @property
    def min(self) -> float | None: ...
    @property
    def max(self) -> float | None: ...


@dataclass(frozen=True)
class Candidate:
    """One network of the space. hash: its canonical identity, equal for equal networks; counts are for one image."""

    picks: Mapping[str, int]
    spec: Spec
    hash: str
    params: int
    macs: int


@dataclass(frozen=True)
class Facts:
    """What is known about a candidate so far. violations: constraint -> how far beyond, as a share; <= 0 is kept."""

    params: int
    macs: int
    timing: Timing | None = None
    accuracy: Accuracy | None = None
    violations: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Foreseen:
    """What is known about a setting before anything is paid.

    hash: of its network; values: by name of objective or constraint, as far as they are known
    intervals: of those values that are estimates, by name; each holds what will be found with probability `LEVEL`
    """

    hash: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def may_keep(self, name: str, bounds: Bounds) -> bool:
        """Whether a value that is known can lie within its bounds: of an estimate, any of its interval."""
        low, high = self.intervals.get(name, (self.values[name], self.values[name]))
        return (bounds.max is None or low <= bounds.max) and (bounds.min is None or high >= bounds.min)


class Infeasible(Exception):
    """A candidate breaks a hard constraint. violations: as in `Facts`; paid: whether something was measured for it."""

    def __init__(self, message: str, violations: Mapping[str, float], *, paid: bool):
        super().__init__(message)
        self.violations, self.paid = violations, paid


LatencyOf = Callable[[Spec], Timing]
"""Takes a network's time on one target: where its latency, throughput, peak memory and energy come from."""
Say = Callable[[str], None]
Keep = Callable[[str, Any], None]


class Assessor:
    """Finds out a candidate's values, the most expensive last.

    constraints: hard bounds by objective name
    latency, accuracy: how those are taken; needed only when an objective or a constraint asks for them. In a study of
        several targets latency is a mapping from their labels, and its names are `latency@label`
    seed: of the first training run
    halving: stops trainings early, by comparison with the study's `others` (a campaign says which those are)
    foresight: knows latencies before they are measured
    """

    def __init__(
        self,
        space: SpecsByPicks,
        objectives: Sequence[Objective],
        *,
        constraints: Mapping[str, Bounds] | None = None,
        latency: LatencyOf | Mapping[str, LatencyOf] | None = None,
        accuracy: Evaluator[Spec] | None = None,
        seed: int = 0,
        halving: Halving | None = None,
        foresight: Foresight | None = None,
    ):
        self.space, self.objectives, self.constraints, self.seed = space, tuple(objectives), constraints or {}, seed
        self.foresight = foresight
        wanted = {objective.name for objective in objectives} | set(self.constraints)
        offered = latency if isinstance(latency, Mapping) else {} if latency is None else {"": latency}
        self.latencies = {t: take for t, take in offered.items() if wanted & {named(kind, t) for kind in MEASURED}}
        self.accuracy = accuracy if "accuracy" in wanted else None
        self.halving = halving
        self.others: Callable[[], Sequence[Record]] = lambda: ()
        there = {"params", "macs", *(named(kind, target) for kind in MEASURED for target in offered)}
        if accuracy is not None:
            there.add("accuracy")
        if wanted - there:
            raise ValueError(f"nothing takes the {' and the '.join(sorted(wanted - there))}")

    def candidate(self, picks: Mapping[str, int]) -> Candidate:
        """The network that the picks give. Errors: SpecError, ShapeError when they give none."""
        spec = self.space.spec(picks)
        cost = compiler.cost(spec)
        return Candidate(dict(picks), spec, compiler.identity(spec), cost.params, cost.macs)

    def prepare(self, once: Once, listen: Listener) -> None:
        """Learn once for the whole study what `foresee` needs; listen: told what is done. Errors: Interrupted"""
        if self.foresight is not None:
            self.foresight.prepare(once, lambda doing: listen(Preparing(doing)))
            for name, sentence in self.foresight.told.items():
                listen(Noted(f"{name} foreseen: {sentence}"))

    def foresee(self, picks: Mapping[str, int]) -> Foreseen:
        """What is known for next to nothing about the network that the picks give. Errors: as `candidate`"""
        candidate = self.candidate(picks)
        counts = {"params": candidate.params, "macs": candidate.macs}
        known = Latencies() if self.foresight is None else self.foresight.of(candidate.spec, candidate.hash)
        return Foreseen(candidate.hash, {**counts, **known.values}, known.intervals)

    def check_counts(self, candidate: Candidate) -> None:
        """Raise Infeasible when parameters or MACs break a constraint: that costs nothing to know."""
        self._check({"params": candidate.params, "macs": candidate.macs}, paid=False)

    def assess(self, candidate: Candidate, say: Say, keep: Keep) -> tuple[Sequence[object], Mapping[str, float]]:
        """The objectives' values and how the constraints are kept.

        say: told `latency` (`latency@label`) and `training` when they begin; keep: given each result as soon as it is
            there, timings as `timing` (`timing@label`)
        Errors: Infeasible; BadValues for a memory or an energy that is not known; MeasureError, TrainingError,
            BackendError as they come
        """
        values: dict[str, float] = {"params": candidate.params, "macs": candidate.macs}
        for target, take in self.latencies.items():
            say(named("latency", target))
            timing = take(candidate.spec)
            keep(named("timing", target), timing.as_json())
            values.update(self._measured(timing, target))
            self._check(values, paid=True)
        if self.accuracy is not None:
            say("training")
            accuracy = self._trained(self.accuracy, candidate, values, keep)
            keep("accuracy", accuracy.as_json())
            values["accuracy"] = accuracy.mean
        return [values[objective.name] for objective in self.objectives], self._violations(values)

    def _trained(
        self, evaluator: Evaluator[Spec], candidate: Candidate, values: Mapping[str, float], keep: Keep
    ) -> Accuracy:
        """Errors: Stopped where early stopping is asked for; what the evaluator raises"""
        if self.halving is None or not isinstance(evaluator, Stepwise):
            return evaluator(candidate.spec, seed=self.seed)
        return train(
            self.halving,
            evaluator,
            candidate.spec,
            seed=self.seed,
            objectives=self.objectives,
            values_with=lambda mean: [{**values, "accuracy": mean}[objective.name] for objective in self.objectives],
            others=lambda: [record for record in self.others() if record.hash != candidate.hash],
            keep=keep,
        )

    def _measured(self, timing: Timing, target: str) -> dict[str, float]:
        """What a timing says about a network, under the names that the study has for it."""
        found: dict[str, float] = {
            named("latency", target): timing.median_ms,
            named("throughput", target): timing.images_per_second,
        }
        where, wanted = f"{timing.runtime} on {timing.device}", {objective.name for objective in self.objectives}
        for kind, word, value, why in (
            ("peak_memory", "memory", timing.peak_memory_bytes, ""),
            ("energy", "energy", timing.energy_mj_per_image, timing.energy_note),
        ):
            name = named(kind, target)
            if value is not None:
                found[name] = value
            elif name in wanted or name in self.constraints:
                reason = f" ({why.removeprefix('not told: ')})" if why else ""
                raise BadValues(f"nobody tells how much {word} a network needs in {where}{reason}: leave {name} out")
        return found

    def worth(self, record: Record) -> tuple[list[float], dict[str, float]]:
        """The objectives' values and the violations of what a record says. Errors: BadValues, as `assess`"""
        values: dict[str, float] = {"params": record.params or 0, "macs": record.macs or 0}
        for target, timing in record.taken.items():
            values.update(self._measured(timing, target))
        if record.accuracy is not None:
            values["accuracy"] = record.accuracy.mean
        return [values[objective.name] for objective in self.objectives], self._violations(values)

    def _check(self, values: Mapping[str, float], *, paid: bool) -> None:
        violations = self._violations(values)
        broken = [name for name, amount in violations.items() if amount > 0]
        if broken:
            message = "; ".join(_broken(name, values[name], self.constraints[name]) for name in broken)
            raise Infeasible(message, violations, paid=paid)

    def _violations(self, values: Mapping[str, float]) -> dict[str, float]:
        return {name: violation(values[name], bounds) for name, bounds in self.constraints.items() if name in values}


def violation(value: float, bounds: Bounds) -> float:
    """How far a value lies beyond its bounds, as a share of the bound; zero or less when it keeps to them."""
    low = (bounds.min - value) / max(abs(bounds.min), 1e-12) if bounds.min is not None else float("-inf")
    high = (value - bounds.max) / max(abs(bounds.max), 1e-12) if bounds.max is not None else float("-inf")
    return max(low, high, -1e9)


def _broken(name: str, value: float, bounds: Bounds) -> str:
    above = bounds.max is not None and value > bounds.max
    limit = bounds.max if above else bounds.min
    return f"{name} is {_number(value)}, but must be at {'most' if above else 'least'} {_number(limit)}"


def _number(value: float | None) -> str:
    return f"{value:_}" if isinstance(value, int) else f"{value:g}"
