"""What one worker does with the trials that it holds: find out what the network is worth, write it down, finish.

One bad network costs one trial. A network that is known costs nothing: the trial gets what was found out before. One
that another worker is at is set aside until the other has finished.
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
from archdsl.study.candidate import Assessor, Candidate, Infeasible
from archdsl.study.crew.interrupts import Interrupted, Interrupts
from archdsl.study.events import Listener, StepBegan, TrialBegan, TrialEnded, TrialLost
from archdsl.study.halving import Stopped
from archdsl.study.objectives import BadValues, checked
from archdsl.study.opened import is_of_storage
from archdsl.study.proposals.parameters import Turnable, picks_of
from archdsl.study.record import PREFIX
from archdsl.study.storage.history import History, kept
from archdsl.study.storage.leases import Lease, Leases, Lost
from archdsl.study.storage.turns import Turns

FOUND_OUT = ("timing", "accuracy", "reason", "rule")
"""What a trial keeps that holds for every other with the same network; a timing's target may follow behind an @."""


@dataclass(frozen=True)
class Verdict:
    """How a trial ends. An infeasible one is PRUNED: it has no values, but samplers learn from its violations."""

    state: TrialState
    values: Sequence[float] | None = None
    violations: Mapping[str, float] = field(default_factory=dict)


class SameNetwork(Exception):
    """Another worker is at the same network: its result will be this trial's. of: that trial's number"""

    def __init__(self, of: int):
        super().__init__(f"the network of trial {of}")
        self.of = of


class Trials:
    """The trials of one worker, from their lease to their end.

    num_set_aside: how many wait for what another worker finds out
    """

    def __init__(
        self,
        space: Turnable,
        assessor: Assessor,
        history: History,
        leases: Leases,
        turns: Turns,
        interrupts: Interrupts,
        listen: Listener,
    ):
        self._space, self._assessor, self._listen = space, assessor, listen
        self._history, self._leases, self._turns, self._interrupts = history, leases, turns, interrupts
        self._set_aside: list[tuple[Lease, int]] = []

    @property
    def num_set_aside(self) -> int:
        return len(self._set_aside)

    def do(self, lease: Lease) -> None:
        """Find out what a trial is worth and finish it; or set it aside.

        Errors: Interrupted and StudyError, when the trial has been given back; those of a disk or a database
        """
        begun = time.monotonic()
        attributes: dict[str, Any] = {}
        try:
            verdict = self._verdict(lease)
        except (Interrupted, StudyError):
            self._leases.give_back(lease)
            raise
        except SameNetwork as same:
            self._set_aside.append((lease, same.of))
            return
        except Lost as lost:
            self._listen(TrialLost(lost.number))
            return
        except Infeasible as error:
            verdict = Verdict(TrialState.PRUNED, None, error.violations)
            attributes = _why("infeasible", str(error), cheap=not error.paid)
        except Stopped as error:
            verdict = Verdict(TrialState.PRUNED)
            attributes = _why("stopped", str(error))
        except (SpecError, ShapeError) as error:
            verdict = Verdict(TrialState.FAIL)
            attributes = _why("invalid", _first_line(error), cheap=True)
        except BadValues as error:
            verdict = Verdict(TrialState.FAIL)
            attributes = _why("bad-values", str(error))
        except ArchError as error:
            verdict = Verdict(TrialState.FAIL)
            attributes = _why(error.problems[0].rule, _first_line(error))
        except MemoryError:
            verdict = Verdict(TrialState.FAIL)
            attributes = _why("out-of-memory", "out of memory")
        except OSError:
            raise  # the disk, not the network
        except Exception as error:
            if is_of_storage(error):
                raise  # the database, not the network
            verdict = Verdict(TrialState.FAIL)
            attributes = _why("exception", f"{type(error).__name__}: {error}"[:500])
        self._settle(lease, verdict, {**attributes, "seconds": round(time.monotonic() - begun, 3)})

    def take_up_set_aside(self) -> None:
        """Finish the trials whose networks another worker has paid for meanwhile."""
        if not self._set_aside:
            return
        self._history.refresh()
        left = []
        for lease, of in self._set_aside:
            original = self._history.trials[of]
            if original.state.is_finished():
                try:
                    verdict = self._reused(lease, original)
                except Lost as lost:
                    self._listen(TrialLost(lost.number))
                else:
                    self._settle(lease, verdict, {"waits_for": None, "seconds": 0.0})
            elif original.state == TrialState.WAITING:
                self._leases.give_back(lease)  # nobody is at it any more: both are asked for again
            else:
                left.append((lease, of))
        self._set_aside = left

    def give_back_set_aside(self) -> None:
        """Let others have the trials that wait: this worker ends."""
        for lease, _ in self._set_aside:
            self._leases.give_back(lease)
        self._set_aside.clear()

    def _settle(self, lease: Lease, verdict: Verdict, attributes: Mapping[str, Any]) -> None:
        """Finish a trial, unless it has become another's."""
        try:
            self._leases.settle(
                lease, verdict.state, verdict.values, attributes, lambda trial: _constrain(trial, verdict.violations)
            )
        except (Lost, UpdateFinishedTrialError):
            self._listen(TrialLost(lease.number))
            return
        self._history.refresh()
        self._listen(TrialEnded(self._history.record(lease.number)))

    def _verdict(self, lease: Lease) -> Verdict:
        """Find out what a trial is worth. Errors: whatever keeps it from having values"""
        candidate = self._assessor.candidate(self._picks(lease.trial))
        known = self._known(lease, candidate)
        if known is not None:
            return self._reused(lease, known)
        self._assessor.check_counts(candidate)
        self._listen(TrialBegan(lease.number, _name(lease, candidate)))

        def say(step: str) -> None:
            with self._interrupts.held_back():
                self._listen(StepBegan(lease.number, step))

        def keep(key: str, value: Any) -> None:
            with self._interrupts.held_back():
                self._leases.keep(lease, {key: value})

        with self._interrupts.open():
            values, violations = self._assessor.assess(candidate, say, keep)
        return Verdict(TrialState.COMPLETE, checked(values, self._assessor.objectives), violations)

    def _picks(self, trial: Trial) -> dict[str, int]:
        _ = trial.relative_params  # some samplers take long for these: not while a transaction is open
        with self._turns.together():
            return picks_of(trial, self._space)

    def _known(self, lease: Lease, candidate: Candidate) -> FrozenTrial | None:
        """The first finished trial of the same network, if there is one; else it becomes this trial's to pay for.

        Errors: SameNetwork when another worker is paying for it; Lost
        """
        attributes = {
            "picks": candidate.picks,
            "name": _name(lease, candidate),
            "hash": candidate.hash,
            "params": candidate.params,
            "macs": candidate.macs,
        }
        with self._leases.holding(lease):
            self._history.refresh()
            known = self._history.first_of(candidate.hash)
            at_it = [
                trial.number
                for trial in self._history.running
                if trial.number != lease.number
                and kept(trial, "hash") == candidate.hash
                and kept(trial, "waits_for") is None
            ]
            if known is None and at_it:
                attributes["waits_for"] = at_it[0]
            self._leases.write(lease, attributes)
        if known is None and at_it:
            raise SameNetwork(at_it[0])
        return known

    def _reused(self, lease: Lease, known: FrozenTrial) -> Verdict:
        """The verdict on another trial with the same network, with all that was found out for it."""
        attributes = {key.removeprefix(PREFIX): value for key, value in known.user_attrs.items()}
        found = {key: value for key, value in attributes.items() if key.partition("@")[0] in FOUND_OUT}
        self._leases.keep(lease, {"duplicate_of": known.number, "cheap": True, **found})
        return Verdict(known.state, known.values if known.state == TrialState.COMPLETE else None, known.constraints)


def _name(lease: Lease, candidate: Candidate) -> str:
    return lease.trial.user_attrs.get(PREFIX + "name") or f"{candidate.spec.name}-{candidate.hash[:6]}"


def _why(rule: str, reason: str, *, cheap: bool = False) -> dict[str, Any]:
    return {"reason": reason, "rule": rule, "cheap": cheap}


def _constrain(trial: Trial, violations: Mapping[str, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trial that was taken up again may have them already
        for name, amount in violations.items():
            trial.set_constraint(name, amount)


def _first_line(error: ArchError) -> str:
    return error.problems[0].message.splitlines()[0][:500]
