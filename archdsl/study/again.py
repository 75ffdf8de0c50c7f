"""What is done again for a network of the front, and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from archdsl.errors import ArchError
from archdsl.latency import Timing
from archdsl.spec.aims import Confirm
from archdsl.spec.model import Spec
from archdsl.study.candidate import Assessor
from archdsl.study.crew.trainers import Trainers
from archdsl.study.measured import MeasuredLatency
from archdsl.training import Accuracy

Retime = Callable[[Sequence[Spec]], Sequence[Timing | ArchError]]
"""Times networks anew, in turns with each other. -> for each its timing, or why it has none"""
Retrain = Callable[[Spec], Accuracy]
"""Trains a network with further seeds. -> the accuracy over those"""


@dataclass(frozen=True)
class Again:
    """What is done again for each network of a front.

    retime: by the target's label, '' where the study has one target; only targets whose timings are noisy
    retrain: trains with `num_seeds` further seeds; None where accuracies stay as they are
    """

    retime: Mapping[str, Retime] = field(default_factory=dict)
    retrain: Retrain | None = None
    num_seeds: int = 0

    def __bool__(self) -> bool:
        return bool(self.retime) or self.retrain is not None

    def __str__(self) -> str:
        seeds = f"trained with {self.num_seeds} more seed{'s' if self.num_seeds > 1 else ''}" if self.retrain else ""
        return " and ".join(filter(None, ["timed again in turns" if self.retime else "", seeds]))


def again_for(asked: Confirm, assessor: Assessor) -> Again:
    """What `asked` comes to in a study: nothing where nothing is noise, as with the runtime `null` or a table."""
    trainers = assessor.accuracy
    retrain: Retrain | None = None
    if asked.seeds and isinstance(trainers, Trainers):
        retrain = partial(trainers.with_seeds(asked.seeds), seed=assessor.seed + trainers.num_seeds)
    retime = {
        target: take.in_turns
        for target, take in assessor.latencies.items()
        if asked.timings and isinstance(take, MeasuredLatency) and not take.target.is_analytic
    }
    return Again(retime, retrain, asked.seeds)
