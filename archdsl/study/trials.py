"""The trials of one worker: evaluate the network, store the result, finish the trial.

One bad network costs one trial. A duplicate of a finished network costs nothing: the trial gets the values of the
first. A duplicate of a network that another worker evaluates is postponed until that worker has finished.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from archdsl.errors import ArchError, ShapeError, SpecError, StudyError
from archdsl.events import Listener
from archdsl.language import Space
from archdsl.study.candidate import Assessor, Candidate, Infeasible
from archdsl.study.early_stopping import Stopped
from archdsl.study.events import StepBegan, TrialBegan, TrialEnded, TrialLost
from archdsl.study.interrupts import Interrupts
from archdsl.study.objectives import BadValues, checked
from archdsl.study.proposals.parameters import suggest_assignment
from archdsl.study.record import PREFIX, reason_of
from archdsl.study.storage.history import History, read_attribute
from archdsl.study.storage.leases import Lease, LeaseLost, Leases
from archdsl.study.storage.store import StudyStore
from archdsl.study.storage.study import is_storage_error

OF_NETWORK = ("timing", "latency_estimate", "accuracy", "reason", "rule")
"""Attributes of a trial that hold for its duplicates, too; a timing's target may follow behind an @."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ends. An infeasible one is PRUNED: it has no values, but samplers use its violations."""

    state: TrialState
    values: Sequence[float] | None = None
    violations: Mapping[str, float] = field(default_factory=dict)


class SameNetwork(Exception):
    """Another worker evaluates the same network; its result is this trial's. of: the number of the other trial"""

    def __init__(self, of: int):
        super().__init__(f"the network of trial {of}")
        self.of = of


class Trials:
    """Runs the trials of one worker, from their lease to their end."""

    def __init__(
        self,
        space: Space,
        assessor: Assessor,
        history: History,
        leases: Leases,
        store: StudyStore,
        interrupts: Interrupts,
        on_event: Listener,
    ):
        self._space, self._assessor, self._on_event = space, assessor, on_event
        self._history, self._leases, self._store, self._interrupts = history, leases, store, interrupts
        self._postponed: list[tuple[Lease, int]] = []

    @property
    def num_postponed(self) -> int:
        """How many trials wait until another worker has evaluated the same network."""
        return len(self._postponed)

    def run(self, lease: Lease) -> None:
        """Evaluate the network of a trial and finish the trial, or postpone it.

        Raises: Interrupted and StudyError, after the trial was released; what the disk or the database raises
        """
        begun = time.monotonic()
        attributes: dict[str, Any] = {}
        try:
            result = self._evaluate(lease)
        except (KeyboardInterrupt, SystemExit, StudyError):
            self._leases.release(lease)
            raise
        except SameNetwork as same:
            self._postponed.append((lease, same.of))
            return
        except LeaseLost as lost:
            self._on_event(TrialLost(lost.number))
            return
        except Exception as error:
            if isinstance(error, OSError) or is_storage_error(error):
                raise  # the disk or the database, not the network
            result, attributes = _ending(error)
        self._finish(lease, result, {**attributes, "seconds": round(time.monotonic() - begun, 3)})

    def finish_postponed(self) -> None:
        """Finish the postponed trials whose networks another worker has evaluated meanwhile."""
        if not self._postponed:
            return
        self._history.refresh()
        left = []
        for lease, of in self._postponed:
            original = self._history.trials[of]
            if original.state.is_finished():
                try:
                    result = self._reused(lease, original)
                except LeaseLost as lost:
                    self._on_event(TrialLost(lost.number))
                else:
                    self._finish(lease, result, {"waits_for": None, "seconds": 0.0})
            elif original.state == TrialState.WAITING:
                self._leases.release(lease)  # no worker has it any more: both are asked for again
            else:
                left.append((lease, of))
        self._postponed = left

    def release_postponed(self) -> None:
        """Release the postponed trials: this worker ends."""
        for lease, _ in self._postponed:
            self._leases.release(lease)
        self._postponed.clear()

    def _finish(self, lease: Lease, result: TrialResult, attributes: Mapping[str, Any]) -> None:
        """Finish a trial, unless it was given to another worker."""
        try:
            self._leases.finish(
                lease, result.state, result.values, attributes, lambda trial: _constrain(trial, result.violations)
            )
        except (LeaseLost, UpdateFinishedTrialError):
            self._on_event(TrialLost(lease.number))
            return
        self._history.refresh()
        self._on_event(TrialEnded(self._history.record(lease.number)))

    def _evaluate(self, lease: Lease) -> TrialResult:
        """Evaluate the network of a trial. Raises: what keeps the trial from having values"""
        assignment = self._assignment(lease.trial)
        with self._interrupts.interruptible():
            candidate = self._assessor.candidate(assignment)
        original = self._original(lease, candidate)
        if original is not None:
            return self._reused(lease, original)
        self._assessor.check_counts(candidate)
        self._on_event(TrialBegan(lease.number, _name(lease, candidate)))

        def on_step(step: str) -> None:
            with self._interrupts.uninterruptible():
                self._on_event(StepBegan(lease.number, step))

        def store(key: str, value: Any) -> None:
            with self._interrupts.uninterruptible():
                self._leases.write(lease, {key: value})

        with self._interrupts.interruptible():
            values, violations = self._assessor.assess(candidate, on_step, store)
        return TrialResult(TrialState.COMPLETE, checked(values, self._assessor.objectives), violations)

    def _assignment(self, trial: Trial) -> dict[str, int]:
        _ = trial.relative_params  # some samplers take long for these: not while a transaction is open
        with self._store.batch():
            return suggest_assignment(trial, self._space, between=self._interrupts.heed)

    def _original(self, lease: Lease, candidate: Candidate) -> FrozenTrial | None:
        """The first finished trial of the same network; None where there is none, and this trial is to evaluate it.

        Raises: SameNetwork when another worker evaluates it; LeaseLost
        """
        attributes = {
            "picks": candidate.assignment,
            "name": _name(lease, candidate),
            "hash": candidate.hash,
            "params": candidate.params,
            "macs": candidate.macs,
        }
        with self._leases.held(lease):
            self._history.refresh()
            original = self._history.first_of(candidate.hash)
            running = [
                trial.number
                for trial in self._history.running
                if trial.number != lease.number
                and read_attribute(trial, "hash") == candidate.hash
                and read_attribute(trial, "waits_for") is None
            ]
            if original is None and running:
                attributes["waits_for"] = running[0]
            self._leases.write_held(lease, attributes)
        if original is None and running:
            raise SameNetwork(running[0])
        return original

    def _reused(self, lease: Lease, original: FrozenTrial) -> TrialResult:
        """The result of the first trial with the same network; its attributes are copied."""
        attributes = {key.removeprefix(PREFIX): value for key, value in original.user_attrs.items()}
        found = {key: value for key, value in attributes.items() if key.partition("@")[0] in OF_NETWORK}
        self._leases.write(lease, {"duplicate_of": original.number, "cheap": True, **found})
        values = original.values if original.state == TrialState.COMPLETE else None
        return TrialResult(original.state, values, original.constraints)


def _name(lease: Lease, candidate: Candidate) -> str:
    return lease.trial.user_attrs.get(PREFIX + "name") or f"{candidate.spec.name}-{candidate.hash[:6]}"


def _why(rule: str, reason: str, *, cheap: bool = False) -> dict[str, Any]:
    return {"reason": reason, "rule": rule, "cheap": cheap}


def _constrain(trial: Trial, violations: Mapping[str, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trial that was requeued may have them already
        for name, amount in violations.items():
            trial.set_constraint(name, amount)


def _ending(error: Exception) -> tuple[TrialResult, dict[str, Any]]:
    """How a trial ends whose network cannot be evaluated, and the attributes that say why."""
    match error:
        case Infeasible():
            result = TrialResult(TrialState.PRUNED, None, error.violations)
            return result, _why("infeasible", str(error), cheap=not error.paid)
        case Stopped():
            return TrialResult(TrialState.PRUNED), _why("stopped", str(error))
        case SpecError() | ShapeError():
            why = _why("invalid", reason_of(error), cheap=True)
        case BadValues():
            why = _why("bad-values", str(error))
        case ArchError():
            why = _why(error.problems[0].rule, reason_of(error))
        case MemoryError():
            why = _why("out-of-memory", "out of memory")
        case _:
            why = _why("exception", reason_of(error))
    return TrialResult(TrialState.FAIL), why
