"""The search itself: propose a network, find out what it is worth, write it down; until a budget is spent.

Optuna's ask and tell underneath, on a plain study that its own tools can read. What is added: known designs first, a
network is never paid for twice, hard constraints before anything is paid, one bad network costs one trial, and a study
that was stopped in whatever way goes on where it was, with the proposals it would have made.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Protocol

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from archdsl.errors import ArchError, Place, Problem, ShapeError, SpecError, StudyError
from archdsl.spec.knobs import Knob
from archdsl.spec.space import Start
from archdsl.study.candidate import Assessor, Candidate, Infeasible
from archdsl.study.events import Began, Ended, Listener, StepBegan, StopReason, TrialBegan, TrialEnded
from archdsl.study.interrupts import Interrupted, Interrupts
from archdsl.study.objectives import BadValues, checked
from archdsl.study.owner import is_gone, owner
from archdsl.study.parameters import suggest, value_of
from archdsl.study.plan import Plan, refuse_other
from archdsl.study.record import PREFIX, Record, read_record
from archdsl.study.samplers import Keyed

CHEAP_BEFORE_RANDOM = 5
"""After so many proposals in a row that were known already or infeasible, the next ones are drawn at random."""
MOST_CHEAP = 400
"""After so many in a row the search ends: nothing new is to be found."""
FAILURES_TO_GIVE_UP = 3
"""When the first so many networks all fail, something is wrong that the next will not be spared."""


class Turnable(Protocol):
    """What is needed of a space here: its knobs, and known designs to begin with."""

    @property
    def knobs(self) -> tuple[Knob, ...]: ...
    @property
    def start(self) -> tuple[Start, ...]: ...
    def active(self, picks: Mapping[str, int]) -> tuple[Knob, ...]: ...


@dataclass(frozen=True)
class Outcome:
    """A campaign that came to an end, or was stopped: why, and all trials so far."""

    reason: StopReason
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Verdict:
    """How a trial ends. An infeasible one is PRUNED: it has no values, but samplers learn from its violations."""

    state: TrialState
    values: Sequence[float] | None = None
    violations: Mapping[str, float] = field(default_factory=dict)


class Campaign:
    """One search. `run` may be called again, by this or another process: it goes on.

    place: where messages about the study point (its storage, with passwords masked)
    num_distinct: how many different networks the space holds, where that is known
    """

    def __init__(
        self,
        space: Turnable,
        plan: Plan,
        assessor: Assessor,
        storage: BaseStorage,
        *,
        listen: Listener = lambda event: None,
        place: Place | None = None,
        num_distinct: int | None = None,
    ):
        self.space, self.plan, self.assessor, self.listen = space, plan, assessor, listen
        self.num_distinct = num_distinct
        self._place = place or Place("study")
        self._interrupts = Interrupts()
        self._read: dict[int, Record] = {}
        self._study = self._opened(storage)

    def records(self) -> tuple[Record, ...]:
        """All trials of the study so far."""
        return tuple(self._record(trial) for trial in self._study.get_trials(deepcopy=False))

    def _record(self, trial: FrozenTrial) -> Record:
        found = self._read.get(trial.number)
        if found is None:
            found = read_record(trial)
            if trial.state.is_finished():
                self._read[trial.number] = found
        return found

    def run(self) -> Outcome:
        """Search until the budget is spent.

        Errors: StudyError when another process works on this study, when the first networks all fail alike, or when the
        storage cannot be written. Nothing that is finished is lost by any of these, or by a signal.
        """
        started = time.monotonic()
        with self._interrupts:
            try:
                self._take_up_left_trials()
                self.listen(Began(self.plan.sampler, self.plan.why, self._finished()))
                while (reason := self._reason_to_stop(started)) is None:
                    try:
                        self._one_trial()
                    except Interrupted:
                        reason = "interrupted"
                        break
            except OSError as error:
                message = f"the study cannot be written: {error.strerror or error}"
                hint = "nothing finished is lost; make room, and the same command goes on"
                raise StudyError(Problem(self._place, "cannot-write", message, hint)) from error
        self.listen(Ended(reason))
        return Outcome(reason, self.records())

    # --- the study ------------------------------------------------------------------------------------------------

    def _opened(self, storage: BaseStorage) -> optuna.Study:
        directions = [objective.direction for objective in self.plan.objectives]
        names = [study.study_name for study in storage.get_all_studies()]
        if self.plan.name in names:
            study = optuna.load_study(study_name=self.plan.name, storage=storage)
        else:
            study = optuna.create_study(study_name=self.plan.name, storage=storage, directions=directions)
        attributes = study.user_attrs
        same_kind = [direction.name.lower() for direction in study.directions] == directions
        if study.get_trials(deepcopy=False) or PREFIX + "plan" in attributes or not same_kind:
            refuse_other(self.plan, attributes.get(PREFIX + "plan"), self._place)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna calls the names experimental; only its dashboard shows them
                study.set_metric_names([objective.name for objective in self.plan.objectives])
            study.set_user_attr(PREFIX + "plan", self.plan.identity())
        for start in self.space.start[len(study.get_trials(deepcopy=False)) :]:  # a killed process may have done some
            study.enqueue_trial(self._parameters(start.picks), user_attrs={PREFIX + "name": start.name})
        return study

    def _take_up_left_trials(self) -> None:
        """Put back what dead processes were running, so that it is asked for again, under its number."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            holder = trial.user_attrs.get(PREFIX + "owner")
            if is_gone(holder):
                self._put_back(trial)
            elif isinstance(holder, dict) and holder.get("host") == owner()["host"]:
                message = f"process {holder.get('pid')} is working on this study"
                hint = "wait for it, stop it, or search into another --out"
                raise StudyError(Problem(self._place, "busy", message, hint))

    def _put_back(self, trial: FrozenTrial | Trial) -> None:
        """Make a running trial wait again. Optuna has no public word for this; what it has suggested is kept."""
        self._study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)

    def _ask(self) -> Trial:
        trials = self._study.get_trials(deepcopy=False)
        waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        number = min(waiting, default=len(trials))
        wild = _num_cheap_at_the_end(self._finished()) >= CHEAP_BEFORE_RANDOM
        self._study.sampler = Keyed("random" if wild else self.plan.sampler, self.plan.seed, number)
        return self._study.ask()

    # --- one trial ------------------------------------------------------------------------------------------------

    def _one_trial(self) -> None:
        if self._interrupts.asked:
            raise Interrupted
        trial = self._ask()
        self._keep(trial, "owner", owner())
        begun = time.monotonic()
        try:
            verdict = self._verdict(trial)
        except Interrupted:
            self._put_back(trial)
            raise
        except StudyError:
            self._put_back(trial)
            raise
        except Infeasible as error:
            verdict = Verdict(TrialState.PRUNED, None, error.violations)
            self._say_why(trial, "infeasible", str(error), cheap=not error.paid)
        except (SpecError, ShapeError) as error:
            verdict = Verdict(TrialState.FAIL)
            self._say_why(trial, "invalid", _first_line(error), cheap=True)
        except BadValues as error:
            verdict = Verdict(TrialState.FAIL)
            self._say_why(trial, "bad-values", str(error))
        except ArchError as error:
            verdict = Verdict(TrialState.FAIL)
            self._say_why(trial, error.problems[0].rule, _first_line(error))
        except MemoryError:
            verdict = Verdict(TrialState.FAIL)
            self._say_why(trial, "out-of-memory", "out of memory")
        except OSError:
            raise  # the disk, not the network
        except Exception as error:
            verdict = Verdict(TrialState.FAIL)
            self._say_why(trial, "exception", f"{type(error).__name__}: {error}"[:500])
        self._constrain(trial, verdict.violations)
        self._keep(trial, "seconds", round(time.monotonic() - begun, 3))
        self._study.tell(trial, verdict.values, verdict.state)
        self.listen(TrialEnded(self.records()[trial.number]))
        self._give_up_if_hopeless()

    def _verdict(self, trial: Trial) -> Verdict:
        """Find out what a trial is worth. Errors: whatever keeps it from having values"""
        picks = self._picks(trial)
        self._keep(trial, "picks", picks)
        candidate = self.assessor.candidate(picks)
        name = trial.user_attrs.get(PREFIX + "name") or f"{candidate.spec.name}-{candidate.hash[:6]}"
        for key, value in (
            ("name", name),
            ("hash", candidate.hash),
            ("params", candidate.params),
            ("macs", candidate.macs),
        ):
            self._keep(trial, key, value)
        known = self._known(candidate)
        if known is not None:
            return self._reused(trial, known)
        self.assessor.check_counts(candidate)
        self.listen(TrialBegan(trial.number, name))

        def say(step: str) -> None:
            with self._interrupts.held_back():
                self.listen(StepBegan(trial.number, step))

        def keep(key: str, value: Any) -> None:
            with self._interrupts.held_back():
                self._keep(trial, key, value)

        with self._interrupts.open():
            values, violations = self.assessor.assess(candidate, say, keep)
        return Verdict(TrialState.COMPLETE, checked(values, self.plan.objectives), violations)

    def _known(self, candidate: Candidate) -> FrozenTrial | None:
        """The first finished trial of the same network, if there is one."""
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished() and self._record(trial).hash == candidate.hash:
                return trial
        return None

    def _reused(self, trial: Trial, known: FrozenTrial) -> Verdict:
        """The verdict on another trial with the same network, with all that was found out for it."""
        self._keep(trial, "duplicate_of", known.number)
        self._keep(trial, "cheap", True)
        for key in ("timing", "accuracy", "reason", "rule"):
            if PREFIX + key in known.user_attrs:
                self._keep(trial, key, known.user_attrs[PREFIX + key])
        return Verdict(known.state, known.values if known.state == TrialState.COMPLETE else None, known.constraints)

    def _say_why(self, trial: Trial, rule: str, reason: str, *, cheap: bool = False) -> None:
        self._keep(trial, "reason", reason)
        self._keep(trial, "rule", rule)
        self._keep(trial, "cheap", cheap)

    def _keep(self, trial: Trial, key: str, value: Any) -> None:
        trial.set_user_attr(PREFIX + key, value)

    def _constrain(self, trial: Trial, violations: Mapping[str, float]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trial that was taken up again may have them already
            for name, amount in violations.items():
                trial.set_constraint(name, amount)

    # --- picks and parameters -------------------------------------------------------------------------------------

    def _picks(self, trial: Trial) -> dict[str, int]:
        """Let Optuna turn the knobs, those of the picked options included."""
        picks: dict[str, int] = {}
        pending = [knob for knob in self.space.knobs if knob.parent is None]
        while pending:
            knob = pending.pop(0)
            picks[knob.name] = suggest(trial, knob)
            pending += knob.choices[picks[knob.name]].knobs
        return picks

    def _parameters(self, picks: Mapping[str, int]) -> dict[str, Any]:
        """Optuna's parameters for picks: the reverse of `_picks`."""
        return {knob.name: value_of(knob, picks[knob.name]) for knob in self.space.active(picks)}

    # --- when to stop ---------------------------------------------------------------------------------------------

    def _finished(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records() if record.state != "open")

    def _reason_to_stop(self, started: float) -> StopReason | None:
        if self._interrupts.asked:
            return "interrupted"
        records = self._finished()
        paid = [record for record in records if not record.cheap]
        if len(paid) >= self.plan.trials:
            return "trials"
        hashes = {record.hash for record in records if record.hash is not None}
        if self.num_distinct is not None and len(hashes) >= self.num_distinct:
            return "exhausted"
        if _num_cheap_at_the_end(records) >= MOST_CHEAP:
            return "nothing-new"
        if self.plan.time_limit_s is not None:
            each = [record.seconds for record in paid if record.seconds is not None and isfinite(record.seconds)]
            expected = sum(each) / len(each) if each else 0.0
            if time.monotonic() - started + expected > self.plan.time_limit_s:
                return "time"
        return None

    def _give_up_if_hopeless(self) -> None:
        paid = [record for record in self._finished() if not record.cheap]
        rules = {record.rule for record in paid if record.state == "failed"}
        if len(paid) == FAILURES_TO_GIVE_UP and len(rules) == 1 and all(record.state == "failed" for record in paid):
            message = f"the first {len(paid)} networks all failed alike: {paid[-1].reason}"
            hint = "mend that and start again with --fresh"
            raise StudyError(Problem(self._place, str(paid[-1].rule), message, hint))


def _num_cheap_at_the_end(records: tuple[Record, ...]) -> int:
    """How many of the last finished trials in a row cost nothing."""
    count = 0
    for record in reversed(records):
        if not record.cheap:
            break
        count += 1
    return count


def _first_line(error: ArchError) -> str:
    return error.problems[0].message.splitlines()[0][:500]
