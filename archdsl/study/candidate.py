"""From an assignment to values: the network first, then its counts, then the latency, then the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archdsl import compiler
from archdsl.evaluators import Evaluator, Stepwise
from archdsl.events import Listener, Note, Step
from archdsl.language import Space
from archdsl.language.architecture.model import Spec
from archdsl.language.space.objectives import MEASURED
from archdsl.language.text.quantities import exact_text
from archdsl.latency import Timing
from archdsl.study.early_stopping import SuccessiveHalving, train
from archdsl.study.objectives import Objective, named
from archdsl.study.predicted_latencies import Estimates, PredictedLatencies
from archdsl.study.record import Record
from archdsl.study.scoring import Bounds, Scoring
from archdsl.study.storage.shared_results import SharedResults
from archdsl.training import Accuracy


@dataclass(frozen=True)
class Candidate:
    """One network of the space. hash: its canonical identity, equal for equal networks; counts are for one image."""

    assignment: Mapping[str, int]
    spec: Spec
    hash: str
    params: int
    macs: int


@dataclass(frozen=True)
class KnownCosts:
    """What is known about a network before it is evaluated.

    hash: the network's; values: by name of objective or constraint, as far as they are known
    intervals: of the values that are predicted, by name; each holds the measured value with probability `LEVEL`
    """

    hash: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def may_keep(self, name: str, bounds: Bounds) -> bool:
        """Whether a known value lies within its bounds; a predicted one does if any value of its interval does."""
        low, high = self.intervals.get(name, (self.values[name], self.values[name]))
        return (bounds.max is None or low <= bounds.max) and (bounds.min is None or high >= bounds.min)


class Infeasible(Exception):
    """A candidate violates a hard constraint.

    violations: constraint -> how far its value lies beyond the bound, as a share of it; zero or less is within
    paid: whether the candidate was measured
    """

    def __init__(self, message: str, violations: Mapping[str, float], *, paid: bool):
        super().__init__(message)
        self.violations, self.paid = violations, paid


LatencyOf = Callable[[Spec], Timing]
"""Measures a network on one target: where its latency, throughput, peak memory and energy come from."""
EstimateOf = Callable[[Spec], float]
"""Estimates the latency of a network in ms, without a measurement."""
OnStep = Callable[[str], None]
Store = Callable[[str, Any], None]


class Assessor:
    """Evaluates a candidate's objectives and constraints, the most expensive last.

    Args:
        space: gives the network of an assignment
        objectives: in the order of the values
        constraints: hard bounds by objective name
        latency, accuracy: the evaluators; each is needed only when an objective or a constraint asks for it. In a study
            of several targets latency is a mapping from their labels, and its names are `latency@label`
        estimate: estimates the latency, for `latency_estimate`
        seed: of the first training run
        early_stopping: stops trainings by comparison with the study's other networks (`others`, set by the campaign)
        predicted: predicts latencies before they are measured
    Raises: ValueError when an objective or a constraint has no evaluator
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        *,
        constraints: Mapping[str, Bounds] | None = None,
        latency: LatencyOf | Mapping[str, LatencyOf] | None = None,
        accuracy: Evaluator[Spec] | None = None,
        estimate: EstimateOf | None = None,
        seed: int = 0,
        early_stopping: SuccessiveHalving | None = None,
        predicted: PredictedLatencies | None = None,
    ):
        self.space, self.objectives, self.constraints, self.seed = space, tuple(objectives), constraints or {}, seed
        self.scoring = Scoring(self.objectives, self.constraints)
        self.predicted = predicted
        wanted = {objective.name for objective in objectives} | set(self.constraints)
        offered = latency if isinstance(latency, Mapping) else {} if latency is None else {"": latency}
        self.latencies = {t: take for t, take in offered.items() if wanted & {named(kind, t) for kind in MEASURED}}
        self.accuracy = accuracy if "accuracy" in wanted else None
        self.estimate = estimate if "latency_estimate" in wanted else None
        self.early_stopping = early_stopping
        self.others: Callable[[], Sequence[Record]] = lambda: ()
        there = {"params", "macs", *(named(kind, target) for kind in MEASURED for target in offered)}
        if accuracy is not None:
            there.add("accuracy")
        if estimate is not None:
            there.add("latency_estimate")
        if wanted - there:
            raise ValueError(f"nothing evaluates the {' and the '.join(sorted(wanted - there))}")

    def candidate(self, assignment: Mapping[str, int]) -> Candidate:
        """The network of this assignment. Raises: SpecError, ShapeError when it gives none"""
        spec = self.space.spec(assignment)
        cost = compiler.cost(spec)
        return Candidate(dict(assignment), spec, compiler.identity(spec), cost.params, cost.macs)

    def prepare(self, shared: SharedResults, on_event: Listener) -> None:
        """Learn, once for the whole study, what `known_costs` needs.

        Args: on_event: called with `Step` and `Note`
        Raises: Interrupted
        """
        if self.predicted is not None:
            self.predicted.prepare(shared, lambda step: on_event(Step(step)))
            for name, sentence in self.predicted.notes.items():
                on_event(Note(f"{name} predicted: {sentence}"))

    def known_costs(self, assignment: Mapping[str, int]) -> KnownCosts:
        """What is known about the network of this assignment without evaluating it. Raises: as `candidate`"""
        candidate = self.candidate(assignment)
        counts = {"params": candidate.params, "macs": candidate.macs}
        known = Estimates() if self.predicted is None else self.predicted.of(candidate.spec, candidate.hash)
        return KnownCosts(candidate.hash, {**counts, **known.values}, known.intervals)

    def check_counts(self, candidate: Candidate) -> None:
        """Raise Infeasible when parameters or MACs break a constraint."""
        self._check({"params": candidate.params, "macs": candidate.macs}, paid=False)

    def assess(
        self, candidate: Candidate, on_step: OnStep, store: Store
    ) -> tuple[Sequence[object], Mapping[str, float]]:
        """Measure and train a network.

        Args:
            on_step: called with `latency` (`latency@label`), `latency_estimate` and `training` when they begin
            store: called with each result as soon as it is there: `accuracy`, `timing` (`timing@label`),
                `latency_estimate`, as plain data
        Returns: the objectives' values, in their order, and the violation of each constraint (`violation`)
        Raises: Infeasible; BadValues for a memory or an energy that is not known; MeasureError, TrainingError and
            BackendError of the evaluators
        """
        values: dict[str, float] = {"params": candidate.params, "macs": candidate.macs}
        if self.estimate is not None:
            on_step("latency_estimate")
            values["latency_estimate"] = self.estimate(candidate.spec)
            store("latency_estimate", values["latency_estimate"])
            self._check(values, paid=True)
        for target, take in self.latencies.items():
            on_step(named("latency", target))
            timing = take(candidate.spec)
            store(named("timing", target), timing.as_json())
            values.update(self.scoring.measured(timing, target))
            self._check(values, paid=True)
        if self.accuracy is not None:
            on_step("training")
            accuracy = self._trained(self.accuracy, candidate, values, store)
            store("accuracy", accuracy.as_json())
            values["accuracy"] = accuracy.mean
        return [values[objective.name] for objective in self.objectives], self.scoring.violations(values)

    def _trained(
        self, evaluator: Evaluator[Spec], candidate: Candidate, values: Mapping[str, float], store: Store
    ) -> Accuracy:
        """Raises: Stopped where early stopping is asked for; what the evaluator raises"""
        if self.early_stopping is None or not isinstance(evaluator, Stepwise):
            return evaluator(candidate.spec, seed=self.seed)
        return train(
            self.early_stopping,
            evaluator,
            candidate.spec,
            seed=self.seed,
            objectives=self.objectives,
            values_with=lambda mean: [{**values, "accuracy": mean}[objective.name] for objective in self.objectives],
            others=lambda: [record for record in self.others() if record.hash != candidate.hash],
            store=store,
        )

    def _check(self, values: Mapping[str, float], *, paid: bool) -> None:
        violations = self.scoring.violations(values)
        broken = [name for name, amount in violations.items() if amount > 0]
        if broken:
            message = "; ".join(_broken(name, values[name], self.constraints[name]) for name in broken)
            raise Infeasible(message, violations, paid=paid)


def _broken(name: str, value: float, bounds: Bounds) -> str:
    above = bounds.max is not None and value > bounds.max
    limit = bounds.max if above else bounds.min
    return f"{name} is {exact_text(value)}, but must be at {'most' if above else 'least'} {exact_text(limit)}"
