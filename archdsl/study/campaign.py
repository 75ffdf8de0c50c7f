"""The search itself: propose a network, find out what it is worth, write it down; until a budget is spent.

Optuna's ask and tell underneath, on a plain study that its own tools can read. What is added: known designs first, a
network is never paid for twice, hard constraints before anything is paid, one bad network costs one trial, and a study
that was stopped in whatever way goes on where it was, with the proposals it would have made. Any number of processes
may work on one study (`storage.leases`, `storage.turns`): the budget is kept to the trial, and none pays for what
another does.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from archdsl.errors import ArchError, Place, Problem, ShapeError, SpecError, StudyError
from archdsl.spec.knobs import Knob
from archdsl.spec.space import Start
from archdsl.study.candidate import Assessor, Candidate, Infeasible
from archdsl.study.crew.interrupts import Interrupted, Interrupts
from archdsl.study.crew.workers import Workers
from archdsl.study.events import Began, Ended, Listener, StepBegan, StopReason, TrialBegan, TrialEnded, TrialLost
from archdsl.study.front import has_gained
from archdsl.study.halving import Stopped
from archdsl.study.objectives import BadValues, checked
from archdsl.study.plan import Plan, refuse_other
from archdsl.study.proposals.parameters import suggest, value_of
from archdsl.study.proposals.proposer import Proposer
from archdsl.study.proposals.samplers import EHVI, Keyed, given
from archdsl.study.record import PREFIX, Record
from archdsl.study.storage.history import History, kept
from archdsl.study.storage.leases import LEASE_S, Lease, Leases, Lost, has_passed
from archdsl.study.storage.opening import masked
from archdsl.study.storage.owner import is_here
from archdsl.study.storage.turns import turns_of

CHEAP_BEFORE_RANDOM = 5
"""After so many proposals in a row that were known already or infeasible, the next ones are drawn at random."""
MOST_CHEAP = 400
"""After so many in a row the search ends: nothing new is to be found."""
FAILURES_TO_GIVE_UP = 3
"""When the first so many networks all fail, something is wrong that the next will not be spared."""
FOUND_OUT = ("timing", "accuracy", "reason", "rule")
"""What a trial keeps that holds for every other with the same network; a timing's target may follow behind an @."""
MOST_SET_ASIDE = 4
"""So many trials a worker sets aside, because another is at the same network, before it waits for the other."""
PAUSE_S = 0.2
"""Between two looks at what other workers do, while there is nothing to do here."""


class Turnable(Protocol):
    """What is needed of a space here: its knobs, and known designs to begin with."""

    @property
    def knobs(self) -> tuple[Knob, ...]: ...
    @property
    def start(self) -> tuple[Start, ...]: ...
    def active(self, picks: Mapping[str, int]) -> tuple[Knob, ...]: ...
    def sample(self, rng: random.Random) -> dict[str, int]: ...


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


class SameNetwork(Exception):
    """Another worker is at the same network: its result will be this trial's. of: that trial's number"""

    def __init__(self, of: int):
        super().__init__(f"the network of trial {of}")
        self.of = of


class Campaign:
    """One search, or one worker of it. `run` may be called again, by this or another process: it goes on.

    place: where messages about the study point (its storage, with passwords masked)
    num_distinct: how many different networks the space holds, where that is known
    lease_s: seconds after which a trial is given to another worker when its own falls silent
    job: plain data kept with a new study, from which a worker elsewhere can put the same search together
    joins: work beside others under the budget and the stops that `archdsl search` set, rather than set them
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
        lease_s: float = LEASE_S,
        job: Mapping[str, Any] | None = None,
        joins: bool = False,
    ):
        self.space, self.plan, self.assessor, self.listen = space, plan, assessor, listen
        self.num_distinct, self.joins = num_distinct, joins
        self._place = place or Place("study")
        self._interrupts = Interrupts()
        self._turns = turns_of(storage, plan.name)
        self._study = self._opened(storage, job)
        self._history = History(self._study._storage, self._study._study_id)
        self._leases = Leases(self._study, self._turns, lease_s=lease_s, pulse=self._heed_stop)
        self._set_aside: list[tuple[Lease, int]] = []
        self._stop_before: object = None
        self._paid_before = 0
        assessor.others = self._history.records
        limits, seed = assessor.constraints, plan.seed
        self._proposer = Proposer(space, plan.objectives, assessor.foresee, constraints=limits, seed=seed)

    def records(self) -> tuple[Record, ...]:
        """All trials of the study so far."""
        self._history.refresh()
        return self._history.records()

    def run(self) -> Outcome:
        """Search until the budget is spent.

        Errors: StudyError when another process of this machine works on this study (unless it `joins`), when the first
        networks all fail alike, or when the storage cannot be written. Nothing that is finished is lost by any of
        these, or by a signal.
        """
        started = time.monotonic()
        with self._interrupts, self._leases, self._storage_failures_told():
            self._begin()
            self.listen(Began(self.plan.sampler, self.plan.why, self._history.finished()))
            try:
                reason = self._work(started)
            except Interrupted:
                reason = "interrupted"
            for lease, _ in self._set_aside:
                self._leases.give_back(lease)
            self._set_aside.clear()
        self.listen(Ended(reason))
        self._turns.close()
        return Outcome(reason, self.records())

    def lead(self, workers: Workers) -> Outcome:
        """Let `workers` do the trials: see that they live, tell what they finish, and end them when this is to end.

        Errors: StudyError as `run` raises, and what the workers say
        """
        started = time.monotonic()
        reason: StopReason | None = None
        with self._interrupts, self._storage_failures_told():
            self._begin()
            self.listen(Began(self.plan.sampler, self.plan.why, self._history.finished()))
            told = {record.number for record in self._history.finished()}
            try:
                workers.start()
                while workers.look(len(told)):
                    told.update(self._tell_new(told))
                    if self._interrupts.asked:
                        reason = "interrupted"
                        stop_all(self._study)
                        break
                    time.sleep(PAUSE_S)
            finally:
                workers.stop()
                with self._turns.taken() as now:
                    self._history.refresh()
                    self._leases.reap(now, self._history.running)
            self._tell_new(told)
            if reason is None:
                left_s = None if self.plan.time_limit_s is None else 0.0
                reason = self._reason_to_stop(started, self.plan.trials, left_s) or "interrupted"
        self.listen(Ended(reason))
        self._turns.close()
        return Outcome(reason, self.records())

    def hand_over(self) -> Outcome:
        """Make the study ready for workers elsewhere, and do nothing of it here."""
        self._begin()
        self._turns.close()
        return Outcome("handed-over", self.records())

    @contextmanager
    def _storage_failures_told(self) -> Iterator[None]:
        """What the disk or the database refuses becomes a StudyError."""
        try:
            yield
        except OSError as error:
            message = f"the study cannot be written: {error.strerror or error}"
            hint = "nothing finished is lost; make room, and the same command goes on"
            raise StudyError(Problem(self._place, "cannot-write", message, hint)) from error
        except Exception as error:
            if not _is_of_storage(error):
                raise
            said = masked(str(error.__cause__ or error)).strip().splitlines()
            message = f"the study's storage failed: {said[0][:300] if said else type(error).__name__}"
            hint = "nothing finished is lost; when it is back, the same command goes on"
            raise StudyError(Problem(self._place, "storage", message, hint)) from None

    def _tell_new(self, told: Collection[int]) -> list[int]:
        """Tell of the trials that are finished and not among `told`. -> their numbers"""
        self._history.refresh()
        new = [record for record in self._history.finished() if record.number not in told]
        for record in new:
            self.listen(TrialEnded(record))
        return [record.number for record in new]

    def _work(self, started: float) -> StopReason:
        """Do trials until there is a reason to stop. Errors: Interrupted"""
        while True:
            if self._interrupts.asked:
                raise Interrupted
            self._take_up_set_aside()
            found = self._claimed(started)
            if isinstance(found, Lease):
                self._one_trial(found)
            elif found is not None:
                return found
            else:
                with self._interrupts.open():
                    time.sleep(PAUSE_S)

    # --- the study ------------------------------------------------------------------------------------------------

    def _opened(self, storage: BaseStorage, job: Mapping[str, Any] | None) -> optuna.Study:
        with self._turns.taken(durable=True):  # two workers that come at once make one study
            directions = [objective.direction for objective in self.plan.objectives]
            names = [study.study_name for study in storage.get_all_studies()]
            if self.plan.name in names:
                study = optuna.load_study(study_name=self.plan.name, storage=storage)
            else:
                study = optuna.create_study(study_name=self.plan.name, storage=storage, directions=directions)
            attributes = study.user_attrs
            same_kind = [direction.name.lower() for direction in study.directions] == directions
            num_there = len(study.get_trials(deepcopy=False))
            if num_there or PREFIX + "plan" in attributes or not same_kind:
                refuse_other(self.plan, attributes.get(PREFIX + "plan"), self._place)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # "experimental": only Optuna's dashboard shows these names
                    study.set_metric_names([objective.name for objective in self.plan.objectives])
                study.set_user_attr(PREFIX + "plan", self.plan.identity())
            if job is not None and attributes.get(PREFIX + "job") != job:
                study.set_user_attr(PREFIX + "job", dict(job))
            for start in self.space.start[num_there:]:  # a killed process may have enqueued some
                study.enqueue_trial(self._parameters(start.picks), user_attrs={PREFIX + "name": start.name})
            return study

    def _begin(self) -> None:
        """Take up what dead workers left, and say what this search is to spend, or hear it from who leads it."""
        with self._turns.taken() as now:
            self._history.refresh()
            self._leases.reap(now, self._history.running)
            self._history.refresh()
            if not self.joins:
                self._refuse_company(now)
                until = None if self.plan.time_limit_s is None else now + self.plan.time_limit_s
                say = {"trials": self.plan.trials, "until": until, "stop": None}
                self._study.set_user_attr(PREFIX + "budget", say)
        self._stop_before = self._budget().get("stop")
        self._paid_before = self._history.num_paid

    def _refuse_company(self, now: float) -> None:
        for trial in self._history.running:
            holder = kept(trial, "owner")
            if isinstance(holder, dict) and is_here(holder) and not has_passed(holder, now):
                message = f"process {holder.get('pid')} is working on this study"
                hint = "wait for it, stop it, join it with `archdsl worker`, or search into another --out"
                raise StudyError(Problem(self._place, "busy", message, hint))

    def _budget(self) -> Mapping[str, Any]:
        """What the leader of the search said last: networks to pay for, when to end, whether to stop."""
        attributes = self._study._storage.get_study_user_attrs(self._study._study_id)
        said = attributes.get(PREFIX + "budget")
        return said if isinstance(said, Mapping) else {}

    def _heed_stop(self) -> None:
        """Called from a thread: end this worker when the leader of the search was stopped after it began."""
        stop = self._budget().get("stop") if self.joins else None
        if stop is not None and stop != self._stop_before and not self._interrupts.asked:
            self._stop_before = stop
            os.kill(os.getpid(), signal.SIGTERM)

    # --- one trial ------------------------------------------------------------------------------------------------

    def _claimed(self, started: float) -> Lease | StopReason | None:
        """A trial for this worker, or why there is none, or None: what others are at may still spend the budget."""
        with self._turns.taken() as now:
            self._history.refresh()
            if self._leases.reap(now, self._history.running):
                self._history.refresh()
            trials, until = self.plan.trials, None
            if self.joins:
                budget = self._budget()
                trials, until = budget.get("trials", trials), budget.get("until")
            reason = self._reason_to_stop(started, trials, None if until is None else until - now)
            if reason is not None:
                return reason
            num_at_work = sum(kept(trial, "waits_for") is None for trial in self._history.running)
            if self._history.num_paid + num_at_work >= trials or len(self._set_aside) >= MOST_SET_ASIDE:
                return None
            number = min((t.number for t in self._history.waiting), default=len(self._history.trials))
            wild = self._history.num_cheap_at_the_end() >= CHEAP_BEFORE_RANDOM
            self._study.sampler = self._sampler("random" if wild else self.plan.sampler, number)
            return self._leases.take(now)

    def _sampler(self, name: str, number: int) -> BaseSampler:
        """What decides the picks of the trial with this number."""
        keyed = Keyed(name, self.plan.seed, number)
        picks = self._proposer.propose(self._history.records(), number) if name == EHVI else None
        return keyed if picks is None else given(self._parameters(picks), keyed)

    def _one_trial(self, lease: Lease) -> None:
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
            self.listen(TrialLost(lost.number))
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
            if _is_of_storage(error):
                raise  # the database, not the network
            verdict = Verdict(TrialState.FAIL)
            attributes = _why("exception", f"{type(error).__name__}: {error}"[:500])
        self._settle(lease, verdict, {**attributes, "seconds": round(time.monotonic() - begun, 3)})
        self._give_up_if_hopeless()

    def _settle(self, lease: Lease, verdict: Verdict, attributes: Mapping[str, Any]) -> None:
        """Finish a trial, unless it has become another's."""
        try:
            self._leases.settle(
                lease, verdict.state, verdict.values, attributes, lambda trial: _constrain(trial, verdict.violations)
            )
        except (Lost, UpdateFinishedTrialError):
            self.listen(TrialLost(lease.number))
            return
        self._history.refresh()
        self.listen(TrialEnded(self._history.record(lease.number)))

    def _verdict(self, lease: Lease) -> Verdict:
        """Find out what a trial is worth. Errors: whatever keeps it from having values"""
        with self._turns.together():
            picks = self._picks(lease.trial)
        candidate = self.assessor.candidate(picks)
        known = self._known(lease, candidate)
        if known is not None:
            return self._reused(lease, known)
        self.assessor.check_counts(candidate)
        self.listen(TrialBegan(lease.number, self._name(lease, candidate)))

        def say(step: str) -> None:
            with self._interrupts.held_back():
                self.listen(StepBegan(lease.number, step))

        def keep(key: str, value: Any) -> None:
            with self._interrupts.held_back():
                self._leases.keep(lease, {key: value})

        with self._interrupts.open():
            values, violations = self.assessor.assess(candidate, say, keep)
        return Verdict(TrialState.COMPLETE, checked(values, self.plan.objectives), violations)

    def _name(self, lease: Lease, candidate: Candidate) -> str:
        return lease.trial.user_attrs.get(PREFIX + "name") or f"{candidate.spec.name}-{candidate.hash[:6]}"

    def _known(self, lease: Lease, candidate: Candidate) -> FrozenTrial | None:
        """The first finished trial of the same network, if there is one; else it becomes this trial's to pay for.

        Errors: SameNetwork when another worker is paying for it; Lost
        """
        attributes = {
            "picks": candidate.picks,
            "name": self._name(lease, candidate),
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

    def _take_up_set_aside(self) -> None:
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
                    self.listen(TrialLost(lost.number))
                else:
                    self._settle(lease, verdict, {"waits_for": None, "seconds": 0.0})
            elif original.state == TrialState.WAITING:
                self._leases.give_back(lease)  # nobody is at it any more: both are asked for again
            else:
                left.append((lease, of))
        self._set_aside = left

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

    def _reason_to_stop(self, started: float, trials: int, left_s: float | None) -> StopReason | None:
        """left_s: seconds that the leader of the search still gives; None for no limit, or one of this plan's own"""
        history = self._history
        if history.num_paid >= trials:
            return "trials"
        if self.num_distinct is not None and history.num_distinct >= self.num_distinct:
            return "exhausted"
        if history.num_cheap_at_the_end() >= MOST_CHEAP:
            return "nothing-new"
        patience = self.plan.patience
        if patience is not None and not has_gained(history.finished(), self.plan.objectives, patience):
            return "no-gain"
        if self.plan.time_limit_s is not None:
            left_s = started + self.plan.time_limit_s - time.monotonic()
        return "time" if left_s is not None and history.mean_seconds > left_s else None

    def _give_up_if_hopeless(self) -> None:
        rule = self._history.common_failure
        if rule is not None and self._paid_before < FAILURES_TO_GIVE_UP <= self._history.num_paid:
            last = next(record for record in reversed(self._history.finished()) if not record.cheap)
            message = f"the first {self._history.num_paid} networks all failed alike: {last.reason}"
            hint = "mend that and start again with --fresh"
            raise StudyError(Problem(self._place, rule, message, hint))


def stop_all(study: optuna.Study) -> None:
    """Tell every worker of a study, wherever it runs, to end within seconds."""
    said = study.user_attrs.get(PREFIX + "budget") or {}
    study.set_user_attr(PREFIX + "budget", {**said, "stop": secrets.token_hex(4)})


def _why(rule: str, reason: str, *, cheap: bool = False) -> dict[str, Any]:
    return {"reason": reason, "rule": rule, "cheap": cheap}


def _constrain(trial: Trial, violations: Mapping[str, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trial that was taken up again may have them already
        for name, amount in violations.items():
            trial.set_constraint(name, amount)


def _first_line(error: ArchError) -> str:
    return error.problems[0].message.splitlines()[0][:500]


def _is_of_storage(error: Exception) -> bool:
    """Whether a database could not be used, rather than a network be assessed."""
    return type(error).__module__.startswith(("sqlalchemy", "optuna.exceptions"))
