"""What a study knows about one trial, read from and written to plain Optuna attributes that start `archdsl:`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from archdsl.latency import Timing
from archdsl.training import Accuracy

State = Literal["complete", "infeasible", "stopped", "failed", "open"]

PREFIX = "archdsl:"


@dataclass(frozen=True)
class Record:
    """One trial.

    state: `complete` has values; `infeasible` breaks a constraint (values None where that was known before paying);
           `stopped` was behind others before the end of its training; `failed` says why in `reason`;
           `open` waits or runs
    hash: the network's canonical hash; name: a known design's, or one made from the hash
    timing: on the study's target; timings: on its targets, by label, where it has several
    duplicate_of: number of the trial that evaluated this network; this one cost nothing
    cheap: it cost neither a timing nor a training
    rungs: with early stopping, epoch -> the objectives' values after it
    before: the record of the search, where this has the values of its confirmation; None for one as the search left it
    """

    number: int
    state: State
    picks: Mapping[str, int]
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

    @property
    def is_confirmed(self) -> bool:
        """Whether the network was evaluated again, when it stood on the front."""
        return self.before is not None

    @property
    def taken(self) -> dict[str, Timing]:
        """Every timing by its target's label, '' where the study has one target."""
        return dict(self.timings) or ({"": self.timing} if self.timing is not None else {})

    def as_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **plain,
            "picks": dict(self.picks),
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
        picks=kept.get("picks") or {},
        hash=kept.get("hash"),
        name=kept.get("name"),
        params=kept.get("params"),
        macs=kept.get("macs"),
        timing=read_timing(kept.get("timing")),
        accuracy=read_accuracy(kept.get("accuracy")),
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        reason=kept.get("reason"),
        rule=kept.get("rule"),
        duplicate_of=kept.get("duplicate_of"),
        cheap=bool(kept.get("cheap")),
        seconds=kept.get("seconds"),
        timings=_timings(kept),
        rungs=_rungs(kept),
    )


def read_accuracy(data: Mapping[str, Any] | None) -> Accuracy | None:
    """The accuracy that `Accuracy.as_json` described; None for anything else."""
    if not isinstance(data, Mapping):
        return None
    known = {field.name for field in fields(Accuracy)}
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in known
    }
    try:
        return Accuracy(**plain)
    except TypeError:
        return None


def _timings(kept: Mapping[str, Any]) -> dict[str, Timing]:
    found = {key.partition("@")[2]: read_timing(value) for key, value in kept.items() if key.startswith("timing@")}
    return {target: timing for target, timing in sorted(found.items()) if timing is not None}


def _rungs(kept: Mapping[str, Any]) -> dict[int, tuple[float, ...]]:
    found = {key.partition("@")[2]: value for key, value in kept.items() if key.startswith("rung@")}
    return {int(epoch): tuple(map(float, values)) for epoch, values in found.items() if epoch.isdecimal()}


def read_timing(data: Any) -> Timing | None:
    """The timing that `Timing.as_json` described; None for anything else."""
    try:
        return Timing.from_json(data) if isinstance(data, Mapping) else None
    except ValueError:
        return None


def _state(trial: FrozenTrial) -> State:
    if not trial.state.is_finished():
        return "open"
    if any(value > 0 for value in trial.constraints.values()):
        return "infeasible"
    if trial.state == TrialState.PRUNED and trial.user_attrs.get(PREFIX + "rule") == "stopped":
        return "stopped"
    return "complete" if trial.state == TrialState.COMPLETE else "failed"
