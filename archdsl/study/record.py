"""What a study stores about one trial, in Optuna's user attributes whose keys begin with `archdsl:`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from optuna.trial import FrozenTrial, TrialState

from archdsl.errors import ArchError
from archdsl.latency import Timing
from archdsl.training.outcome import Accuracy

State = Literal["complete", "infeasible", "stopped", "failed", "open"]

PREFIX = "archdsl:"
_PLAIN = ("hash", "name", "params", "macs", "latency_estimate", "reason", "rule", "duplicate_of", "seconds")
"""Fields that are stored as they are, under their own names."""
Read = TypeVar("Read", Timing, Accuracy)


@dataclass(frozen=True)
class Record:
    """One trial.

    state: `complete` has values; `infeasible` violates a constraint (values None where that was known beforehand);
           `stopped` was behind others before the end of its training; `failed` says why in `reason`;
           `open` waits or runs
    hash: the network's canonical hash; name: a known design's, or one made from the hash
    latency_estimate: in ms, of an engine that was compiled and not run
    timing: on the study's target; timings: on its targets, by label, where it has several
    duplicate_of: number of the trial that has evaluated this network; this one has its values
    cheap: the trial has neither measured nor trained a network
    rungs: with early stopping, epoch -> the objectives' values after it
    before: the record of the search, where this one has re-evaluated values; None otherwise
    """

    number: int
    state: State
    assignment: Mapping[str, int]
    hash: str | None = None
    name: str | None = None
    params: int | None = None
    macs: int | None = None
    timing: Timing | None = None
    accuracy: Accuracy | None = None
    values: tuple[float, ...] | None = None
    reason: str | None = None
    rule: str | None = None
    duplicate_of: int | None = None
    cheap: bool = False
    seconds: float | None = None
    timings: Mapping[str, Timing] = field(default_factory=dict)
    rungs: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    before: Record | None = None
    latency_estimate: float | None = None

    @property
    def is_confirmed(self) -> bool:
        """Whether the network was re-evaluated as a member of the front."""
        return self.before is not None

    @property
    def timing_by_target(self) -> dict[str, Timing]:
        """Every timing by its target's label, '' where the study has one target."""
        return dict(self.timings) or ({"": self.timing} if self.timing is not None else {})

    def as_json(self) -> dict[str, Any]:
        """The fields by name; the assignment under `picks`, the timings by target, each as its own JSON."""
        names = {field.name: field.name for field in fields(self)} | {"assignment": "picks"}
        return {
            **{key: getattr(self, name) for name, key in names.items()},
            "picks": dict(self.assignment),
            "timing": self.timing.as_json() if self.timing else None,
            "timings": {target: timing.as_json() for target, timing in self.timings.items()},
            "accuracy": self.accuracy.as_json() if self.accuracy else None,
            "values": list(self.values) if self.values else None,
            "rungs": {str(epoch): list(values) for epoch, values in self.rungs.items()},
            "before": self.before.as_json() if self.before else None,
        }


def read_record(trial: FrozenTrial) -> Record:
    """The record of a trial. Attributes that are missing or make no sense are left out, never an error."""
    kept = {key.removeprefix(PREFIX): value for key, value in trial.user_attrs.items() if key.startswith(PREFIX)}
    return Record(
        number=trial.number,
        state=_state(trial),
        assignment=kept.get("picks") or {},
        timing=read_json(Timing, kept.get("timing")),
        accuracy=read_json(Accuracy, kept.get("accuracy")),
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        cheap=bool(kept.get("cheap")),
        timings=read_timings({key.partition("@")[2]: kept[key] for key in sorted(kept) if key.startswith("timing@")}),
        rungs=_rungs(kept),
        **{name: kept.get(name) for name in _PLAIN},
    )


def read_json(kind: type[Read], data: Any) -> Read | None:
    """The object of a class that its `as_json` described; None for anything else."""
    try:
        return kind.from_json(data) if isinstance(data, Mapping) else None
    except ValueError:
        return None


def read_timings(data: Mapping[str, Any]) -> dict[str, Timing]:
    """The timings that `Timing.as_json` described, by the target's label; anything else is left out."""
    found = {str(target): read_json(Timing, timing) for target, timing in data.items()}
    return {target: timing for target, timing in found.items() if timing is not None}


def _rungs(kept: Mapping[str, Any]) -> dict[int, tuple[float, ...]]:
    found = {key.partition("@")[2]: value for key, value in kept.items() if key.startswith("rung@")}
    return {int(epoch): tuple(map(float, values)) for epoch, values in found.items() if epoch.isdecimal()}


def _state(trial: FrozenTrial) -> State:
    if not trial.state.is_finished():
        return "open"
    if any(value > 0 for value in trial.constraints.values()):
        return "infeasible"
    if trial.state == TrialState.PRUNED and trial.user_attrs.get(PREFIX + "rule") == "stopped":
        return "stopped"
    return "complete" if trial.state == TrialState.COMPLETE else "failed"


def reason_of(error: Exception) -> str:
    """What an error says in one line, as it is stored in a study."""
    if isinstance(error, ArchError):
        return error.problems[0].message.splitlines()[0][:500]
    return f"{type(error).__name__}: {error}"[:500]
