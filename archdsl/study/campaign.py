"""The search itself: propose a network, find out what it is worth, write it down; until a budget is spent.

Optuna's ask and tell underneath, on a plain study that its own tools can read. What is added: known designs first, a
network is never paid for twice, hard constraints before anything is paid, one bad network costs one trial, and a study
that was stopped in whatever way goes on where it was, with the proposals it would have made. Any number of processes
may work on one study (`storage.leases`, `storage.turns`): the budget is kept to the trial, and none pays for what
another does.

Here is what is proposed next and when it ends; a trial itself is in `trials`, leading other processes in `leader`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from archdsl.errors import Place, Problem, StudyError
from archdsl.spec.space import Start
from archdsl.study.again import Again
from archdsl.study.budget import heard_budget, say_budget, stop_all
from archdsl.study.candidate import Assessor
from archdsl.study.confirmation import Confirmations
from archdsl.study.crew.interrupts import Interrupted, Interrupts
from archdsl.study.crew.workers import Workers
from archdsl.study.events import Began, Ended, Listener, StopReason
from archdsl.study.foresight import NAME as FORESIGHT
from archdsl.study.front import has_gained
from archdsl.study.leader import Leader
from archdsl.study.opened import open_study, storage_failures_told
from archdsl.study.plan import Plan
from archdsl.study.proposals.parameters import Turnable, parameters_of
from archdsl.study.proposals.proposer import Proposer
from archdsl.study.proposals.samplers import EHVI, Keyed, given
from archdsl.study.record import Record
from archdsl.study.storage.history import History, kept
from archdsl.study.storage.leases import LEASE_S, Lease, Leases, has_passed
from archdsl.study.storage.once import Once
from archdsl.study.storage.owner import is_here
from archdsl.study.storage.turns import turns_of
from archdsl.study.trials import Trials

CHEAP_BEFORE_RANDOM = 5
"""After so many proposals in a row that were known already or infeasible, the next ones are drawn at random."""
MOST_CHEAP = 400
"""After so many in a row the search ends: nothing new is to be found."""
FAILURES_TO_GIVE_UP = 3
"""When the first so many networks all fail, something is wrong that the next will not be spared."""
MOST_SET_ASIDE = 4
"""So many trials a worker sets aside, because another is at the same network, before it waits for the other."""
PAUSE_S = 0.2
"""Between two looks at what other workers do, while there is nothing to do here."""


class Searchable(Turnable, Protocol):
    """What is needed of a space here: known designs to begin with, and settings drawn at random."""

    @property
    def start(self) -> tuple[Start, ...]: ...
    def sample(self, rng: random.Random) -> dict[str, int]: ...


@dataclass(frozen=True)
class Outcome:
    """A campaign that came to an end, or was stopped.

    records: all trials so far, as the search found them; known: the same, those of the front with the values that their
        confirmation found; failed: networks that could not be evaluated again, by hash, and why
    """

    reason: StopReason
    records: tuple[Record, ...]
    known: tuple[Record, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


class Campaign:
    """One search, or one worker of it. `run` may be called again, by this or another process: it goes on.

    place: where messages about the study point (its storage, with passwords masked)
    num_distinct: how many different networks the space holds, where that is known
    lease_s: seconds after which a trial is given to another worker when its own falls silent
    job: plain data kept with a new study, from which a worker elsewhere can put the same search together
    joins: work beside others under the budget and the stops that `archdsl search` set, rather than set them
    again: how the front is confirmed when the search has ended, unless it was interrupted; only by who leads it
    """

    def __init__(
        self,
        space: Searchable,
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
        again: Again | None = None,
    ):
        self.space, self.plan, self.assessor, self.listen = space, plan, assessor, listen
        self.num_distinct, self.joins = num_distinct, joins
        self._place = place or Place("study")
        self._interrupts = Interrupts()
        self._turns = turns_of(storage, plan.name)
        start, names = [parameters_of(one.picks, space) for one in space.start], [one.name for one in space.start]
        self._study = open_study(storage, plan, self._turns, self._place, start=start, names=names, job=job)
        self._history = History(self._study._storage, self._study._study_id)
        self._leases = Leases(self._study, self._turns, lease_s=lease_s, pulse=self._heed_stop)
        self._trials = Trials(
            space,
            assessor,
            self._history,
            self._leases,
            self._turns,
            self._interrupts,
            lambda event: self.listen(event),
        )
        self._once = Once(self._study, self._turns, self._interrupts, lease_s=lease_s)
        self._confirmations = Confirmations(
            self._study, self._turns, assessor, again, self._interrupts, lambda event: self.listen(event)
        )
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
        """Search until the budget is spent, then confirm the front.

        Errors: StudyError when another process of this machine works on this study (unless it `joins`), when the first
        networks all fail alike, or when the storage cannot be written. Nothing that is finished is lost by any of
        these, or by a signal.
        """
        started = time.monotonic()
        with self._interrupts, self._leases, storage_failures_told(self._place):
            self._begin()
            try:
                self._prepare()
                self._look_ahead()
                reason = self._work(started)
                self._trials.give_back_set_aside()
                self._confirm(started)
            except Interrupted:
                reason = "interrupted"
                self._trials.give_back_set_aside()
                if not self.joins:
                    stop_all(self._study)
        return self._ended(reason)

    def lead(self, workers: Workers) -> Outcome:
        """Let `workers` do the trials: see that they live, tell what they finish, and end them when this is to end.

        Errors: StudyError as `run` raises, and what the workers say
        """
        started = time.monotonic()
        with self._interrupts, storage_failures_told(self._place):
            self._begin()
            try:
                self._prepare()
            except Interrupted:
                return self._ended("interrupted")
            leader = Leader(self._study, self._turns, self._history, self._leases, self._interrupts, self.listen)
            asked = leader.lead(workers)
            reason = (None if asked else self._reason_to_stop(started, self.plan.trials, None)) or "interrupted"
            if reason != "interrupted":
                try:
                    self._confirm(started)
                except Interrupted:
                    reason = "interrupted"
        return self._ended(reason)

    def hand_over(self) -> Outcome:
        """Make the study ready for workers elsewhere, and do nothing of it here."""
        self._take_up()
        self._turns.close()
        return self._outcome("handed-over")

    # --- beginning and ending -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._take_up()
        self.listen(Began(self.plan.sampler, self.plan.why, self._history.finished()))

    def _prepare(self) -> None:
        """Learn what is proposed by, unless the study knows it. Errors: Interrupted"""
        if self.plan.sampler == EHVI:
            self.assessor.prepare(self._once, self.listen)

    def _look_ahead(self) -> None:
        """What a proposal looks at first is looked at before others wait for its turn. Errors: Interrupted"""
        if self.plan.sampler == EHVI:
            with self._interrupts.open():
                self._proposer.look_ahead()

    def _ended(self, reason: StopReason) -> Outcome:
        self.listen(Ended(reason))
        self._turns.close()
        return self._outcome(reason)

    def _outcome(self, reason: StopReason) -> Outcome:
        records = self.records()
        return Outcome(reason, records, self._confirmations.applied(records), self._confirmations.failed)

    def _take_up(self) -> None:
        """Take up what dead workers left, and say what this search is to spend, or hear it from who leads it."""
        with self._turns.taken() as now:
            self._history.refresh()
            self._leases.reap(now, self._history.running)
            self._history.refresh()
            if not self.joins:
                self._refuse_company(now)
                until = None if self.plan.time_limit_s is None else now + self.plan.time_limit_s
                say_budget(self._study, self.plan.trials, until)
        self._stop_before = heard_budget(self._study).get("stop")
        self._paid_before = self._history.num_paid

    def _refuse_company(self, now: float) -> None:
        for trial in self._history.running:
            holder = kept(trial, "owner")
            if isinstance(holder, dict) and is_here(holder) and not has_passed(holder, now):
                message = f"process {holder.get('pid')} is working on this study"
                hint = "wait for it, stop it, join it with `archdsl worker`, or search into another --out"
                raise StudyError(Problem(self._place, "busy", message, hint))
        doing = (
            (self._confirmations.busy, "confirming the front of this study"),
            (self._once.busy(FORESIGHT, now), "learning latencies for this study"),
        )
        for other, what in doing:
            if other is not None:
                message = f"process {other} is {what}"
                raise StudyError(Problem(self._place, "busy", message, "wait for it, or stop it and start this again"))

    def _heed_stop(self) -> None:
        """Called from a thread: end this worker when the leader of the search was stopped after it began."""
        stop = heard_budget(self._study).get("stop") if self.joins else None
        if stop is not None and stop != self._stop_before and not self._interrupts.asked:
            self._stop_before = stop
            os.kill(os.getpid(), signal.SIGTERM)

    # --- from trial to trial --------------------------------------------------------------------------------------

    def _work(self, started: float) -> StopReason:
        """Do trials until there is a reason to stop. Errors: Interrupted"""
        while True:
            if self._interrupts.asked:
                raise Interrupted
            self._trials.take_up_set_aside()
            found = self._claimed(started)
            if isinstance(found, Lease):
                self._trials.do(found)
                self._give_up_if_hopeless()
            elif found is not None:
                return found
            else:
                with self._interrupts.open():
                    time.sleep(PAUSE_S)

    def _claimed(self, started: float) -> Lease | StopReason | None:
        """A trial for this worker, or why there is none, or None: what others are at may still spend the budget."""
        with self._turns.taken() as now:
            self._history.refresh()
            if self._leases.reap(now, self._history.running):
                self._history.refresh()
            trials, until = self.plan.trials, None
            if self.joins:
                budget = heard_budget(self._study)
                trials, until = budget.get("trials", trials), budget.get("until")
            reason = self._reason_to_stop(started, trials, None if until is None else until - now)
            if reason is not None:
                return reason
            num_at_work = sum(kept(trial, "waits_for") is None for trial in self._history.running)
            if self._history.num_paid + num_at_work >= trials or self._trials.num_set_aside >= MOST_SET_ASIDE:
                return None
            number = min((t.number for t in self._history.waiting), default=len(self._history.trials))
            wild = self._history.num_cheap_at_the_end() >= CHEAP_BEFORE_RANDOM
            self._study.sampler = self._sampler("random" if wild else self.plan.sampler, number)
            return self._leases.take(now)

    def _sampler(self, name: str, number: int) -> BaseSampler:
        """What decides the picks of the trial with this number."""
        keyed = Keyed(name, self.plan.seed, number)
        picks = self._proposer.propose(self._history.records(), number) if name == EHVI else None
        return keyed if picks is None else given(parameters_of(picks, self.space), keyed)

    def _confirm(self, started: float) -> None:
        """Evaluate what stands on the front again. Errors: Interrupted"""
        if not self.joins:
            limit_s = self.plan.time_limit_s
            left_s = None if limit_s is None else started + limit_s - time.monotonic()
            self._confirmations.confirm(self.records(), left_s)

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
