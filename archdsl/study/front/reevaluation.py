"""Which parts of the evaluation are repeated for a network of the front, and by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from archdsl.errors import ArchError
from archdsl.evaluators.train_processes import Trainers
from archdsl.language.architecture.model import Spec
from archdsl.language.space.objectives import Confirm
from archdsl.latency import Timing
from archdsl.study.candidate import Assessor
from archdsl.study.latency_evaluator import LatencyEvaluator
from archdsl.training import Accuracy

Retime = Callable[[Sequence[Spec]], Sequence[Timing | ArchError]]
"""Measures networks again, interleaved with each other; gives for each its timing, or the error."""
Retrain = Callable[[Spec], Accuracy]
"""Trains a network with further seeds; gives the accuracy over those."""


@dataclass(frozen=True)
class Reevaluation:
    """What is repeated for each network of a front.

    retime: measures again, by the target's label, '' where the study has one target; only for targets with noise
    retrain: trains with `num_seeds` further seeds; None where accuracies stay as they are
    """

    retime: Mapping[str, Retime] = field(default_factory=dict)
    retrain: Retrain | None = None
    num_seeds: int = 0

    def __bool__(self) -> bool:
        return bool(self.retime) or self.retrain is not None

    def __str__(self) -> str:
        seeds = f"trained with {self.num_seeds} more seed{'s' if self.num_seeds > 1 else ''}" if self.retrain else ""
        return " and ".join(filter(None, ["re-measured, interleaved" if self.retime else "", seeds]))


def reevaluation_for(asked: Confirm, assessor: Assessor) -> Reevaluation:
    """The part of `asked` that applies to a study: nothing without noise, as with the runtime `null` or a table."""
    trainers = assessor.accuracy
    retrain: Retrain | None = None
    if asked.seeds and isinstance(trainers, Trainers):
        retrain = partial(trainers.with_seeds(asked.seeds), seed=assessor.seed + trainers.num_seeds)
    retime = {
        target: evaluator.measure_interleaved
        for target, evaluator in assessor.latencies.items()
        if asked.timings and isinstance(evaluator, LatencyEvaluator) and not evaluator.target.is_analytic
    }
    return Reevaluation(retime, retrain, asked.seeds)
