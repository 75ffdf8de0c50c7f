"""The search loop: propose a network, evaluate it, store the result; until a budget is spent.

It uses Optuna's ask and tell on a plain study, which Optuna's own tools can read. It adds: known designs are evaluated
first, no network is evaluated twice, hard constraints are checked before a network is evaluated, one bad network costs
one trial, and a study that was stopped in any way continues where it was, with the proposals it would have made. Any
number of processes may work on one study (`storage.leases`, `storage.locks`): the budget is kept to the trial, and no
network is evaluated by two of them.

This module decides what is proposed next and when the search ends. A trial is run by `trials`, other processes are led
by `workers.control`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from archdsl.errors import Place, Problem, StudyError
from archdsl.events import Listener, Note, ignore
from archdsl.language import Space
from archdsl.study.candidate import Assessor
from archdsl.study.config import StudyConfig
from archdsl.study.events import Began, Ended, StopReason
from archdsl.study.front.confirmation import FrontConfirmation
from archdsl.study.front.pareto import has_gained
from archdsl.study.front.reevaluation import Reevaluation
from archdsl.study.interrupts import Interrupted, Interrupts
from archdsl.study.proposals.parameters import parameters_of
from archdsl.study.proposals.proposer import Proposer
from archdsl.study.proposals.samplers import EHVI, Keyed, given
from archdsl.study.record import Record
from archdsl.study.storage.history import History, read_attribute
from archdsl.study.storage.leases import LEASE_S, Lease, Leases
from archdsl.study.storage.shared_results import SharedResults
from archdsl.study.storage.study import create_or_load, storage_errors
from archdsl.study.trials import Trials
from archdsl.study.workers.control import Leader, leading, publish_budget, read_control, request_stop
from archdsl.study.workers.local import Workers

CHEAP_BEFORE_RANDOM = 5
"""After so many proposals in a row that were duplicates or infeasible, the next ones are drawn at random."""
MOST_CHEAP = 400
"""After so many in a row the search ends: it finds no new network."""
FAILURES_TO_GIVE_UP = 3
"""When the first so many networks all fail by one rule, the next ones would, too."""
MOST_POSTPONED = 4
"""So many trials a worker postpones while another evaluates the same network, before it waits for the other."""
PAUSE_S = 0.2
"""Between two reads of the study while this worker has no trial."""


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign has found when it ended or was stopped.

    records: all trials, with the values of the search
    known: the same, but re-evaluated networks of the front with their new values
    failed: networks that could not be re-evaluated, by hash, and why
    """

    reason: StopReason
    records: tuple[Record, ...]
    known: tuple[Record, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


class Campaign:
    """One search, or one worker of it. `run` may be called again, by this or another process, and continues.

    Args:
        space: the networks to choose from
        config: budget, sampler, seed and everything that decides the values
        assessor: evaluates a network
        storage: from `open_storage`
        on_event: called with each event of `study.events`
        place: where messages about the study point (its storage, with passwords masked)
        num_distinct: number of different networks in the space, where it is known
        lease_s: seconds after which a trial of a silent worker is given to another worker
        job: plain data stored with a new study, from which a worker elsewhere can set up the same search
        joins: work with the budget and the stop requests that `archdsl search` publishes, rather than publish them
        reevaluation: how the front is confirmed when the search has ended, unless it was interrupted; not by workers
            that join
    Raises: StudyError when the study in the storage was made with other settings, or the storage fails
    """

    def __init__(
        self,
        space: Space,
        config: StudyConfig,
        assessor: Assessor,
        storage: BaseStorage,
        *,
        on_event: Listener = ignore,
        place: Place | None = None,
        num_distinct: int | None = None,
        lease_s: float = LEASE_S,
        job: Mapping[str, Any] | None = None,
        joins: bool = False,
        reevaluation: Reevaluation | None = None,
    ):
        self.space, self.config, self.assessor, self.on_event = space, config, assessor, on_event
        self.num_distinct, self.joins = num_distinct, joins
        self._place = place or Place("study")
        self._interrupts = Interrupts()
        start = [parameters_of(one.assignment, space) for one in space.start]
        names = [one.name for one in space.start]
        report: Listener = lambda event: self.on_event(event)  # noqa: E731  # whatever listener there is by then
        self._store = create_or_load(
            storage, config, self._place, start=start, names=names, job=job, say=lambda text: report(Note(text))
        )
        self._history = History(self._store)
        self._leases = Leases(self._store, lease_s=lease_s, pulse=self._heed_stop)
        self._trials = Trials(space, assessor, self._history, self._leases, self._store, self._interrupts, report)
        self._shared = SharedResults(self._store, self._interrupts, lease_s=lease_s)
        self._confirmation = FrontConfirmation(self._store, assessor, reevaluation, self._interrupts, report)
        self._stop_before: object = None
        self._evaluated_before = 0
        assessor.others = self._history.records
        limits, seed = assessor.constraints, config.seed
        self._proposer = Proposer(space, config.objectives, assessor.known_costs, constraints=limits, seed=seed)

    def records(self) -> tuple[Record, ...]:
        """The records of all trials of the study so far, by number."""
        self._history.refresh()
        return self._history.records()

    def run(self) -> CampaignResult:
        """Search until the budget is spent, then confirm the front.

        Returns: the trials of the study, the confirmed values of its front, and why the search ended
        Raises: StudyError when another process of this machine leads this study (unless this one `joins`), when the
            first networks all fail by one rule, or when the storage cannot be written. No finished trial is lost by any
            of these, or by a signal.
        """
        started = time.monotonic()
        with self._interrupts, self._leases, storage_errors(self._place), self._leading():
            self._begin()
            try:
                self._prepare()
                self._look_ahead()
                reason = self._work(started)
                self._trials.release_postponed()
                self._confirm(started)
            except Interrupted:
                reason = "interrupted"
                self._trials.release_postponed()
                if not self.joins:
                    request_stop(self._store)
        return self._ended(reason)

    def lead(self, workers: Workers) -> CampaignResult:
        """Let `workers` run the trials: restart those that die, report what they finish, and end them at the end.

        Returns: as `run`
        Raises: StudyError as `run`, and with the problems that a worker has reported
        """
        started = time.monotonic()
        with self._interrupts, storage_errors(self._place), self._leading():
            self._begin()
            reason: StopReason = "interrupted"
            with contextlib.suppress(Interrupted):
                self._prepare()
                leader = Leader(self._store, self._history, self._leases, self._interrupts, self.on_event)
                found = None if leader.lead(workers) else self._reason_to_stop(started, self.config.trials, None)
                if found is not None:
                    self._confirm(started)
                    reason = found
        return self._ended(reason)

    def hand_over(self) -> CampaignResult:
        """Create the study for workers elsewhere, and run no trial here. Raises: StudyError, as `run`"""
        with storage_errors(self._place), self._leading():
            self._start()
        self._store.lock.close()
        return self._outcome("handed-over")

    # --- beginning and ending -------------------------------------------------------------------------------------

    def _leading(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.joins else leading(self._store, self._place)

    def _begin(self) -> None:
        self._start()
        self.on_event(Began(self.config.sampler, self.config.why, self._history.finished()))

    def _prepare(self) -> None:
        """Learn the latencies that proposals use, unless the study has them. Raises: Interrupted"""
        if self.config.sampler == EHVI:
            self.assessor.prepare(self._shared, self.on_event)

    def _look_ahead(self) -> None:
        """Compute what all proposals need while no other worker waits for the lock. Raises: Interrupted"""
        if self.config.sampler == EHVI:
            with self._interrupts.interruptible():
                self._proposer.look_ahead()

    def _ended(self, reason: StopReason) -> CampaignResult:
        self.on_event(Ended(reason))
        self._store.lock.close()
        return self._outcome(reason)

    def _outcome(self, reason: StopReason) -> CampaignResult:
        records = self.records()
        return CampaignResult(reason, records, self._confirmation.applied(records), self._confirmation.failed)

    def _start(self) -> None:
        """Requeue the trials of dead workers, and publish the budget of this search, or read that of its leader."""
        with self._store.lock.held() as now:
            self._history.refresh()
            self._leases.requeue_expired(now, self._history.running)
            self._history.refresh()
            if not self.joins:
                until = None if self.config.time_limit_s is None else now + self.config.time_limit_s
                publish_budget(self._store, self.config.trials, until)
        self._stop_before = read_control(self._store).get("stop")
        self._evaluated_before = self._history.num_evaluated

    def _heed_stop(self) -> None:
        """End this worker when the leader has requested it since this worker began. Called from a thread."""
        stop = read_control(self._store).get("stop") if self.joins else None
        if stop is not None and stop != self._stop_before and not self._interrupts.requested:
            self._stop_before = stop
            os.kill(os.getpid(), signal.SIGTERM)

    # --- from trial to trial --------------------------------------------------------------------------------------

    def _work(self, started: float) -> StopReason:
        """Run trials until there is a reason to stop. Raises: Interrupted"""
        while True:
            self._interrupts.heed()
            self._trials.finish_postponed()
            found = self._next(started)
            if isinstance(found, Lease):
                self._trials.run(found)
                self._give_up_if_hopeless()
            elif found is not None:
                self._trials.finish_postponed()  # the last network may have been evaluated since
                return found
            else:
                with self._interrupts.interruptible():
                    time.sleep(PAUSE_S)

    def _next(self, started: float) -> Lease | StopReason | None:
        """A trial for this worker, or why the search ends; None while the trials of others may still use the budget.

        Raises: Interrupted
        """
        with self._store.lock.held() as now:
            self._history.refresh()
            if self._leases.requeue_expired(now, self._history.running):
                self._history.refresh()
            trials, until = self.config.trials, None
            if self.joins:
                budget = read_control(self._store)
                trials, until = budget.get("trials", trials), budget.get("until")
            reason = self._reason_to_stop(started, trials, None if until is None else until - now)
            if reason is not None:
                return reason
            num_running = sum(read_attribute(trial, "waits_for") is None for trial in self._history.running)
            if self._history.num_evaluated + num_running >= trials or self._trials.num_postponed >= MOST_POSTPONED:
                return None
            number = min((t.number for t in self._history.waiting), default=len(self._history.trials))
            at_random = self._history.num_cheap_at_the_end() >= CHEAP_BEFORE_RANDOM
            self._store.study.sampler = self._sampler("random" if at_random else self.config.sampler, number)
            return self._leases.acquire(now)

    def _sampler(self, name: str, number: int) -> BaseSampler:
        """The sampler of the trial with this number. Raises: Interrupted"""
        keyed = Keyed(name, self.config.seed, number)
        assignment = None
        if name == EHVI:
            with self._interrupts.interruptible():  # it builds networks, each of which may take seconds
                assignment = self._proposer.propose(self._history.records(), number)
        return keyed if assignment is None else given(parameters_of(assignment, self.space), keyed)

    def _confirm(self, started: float) -> None:
        """Re-evaluate the networks on the front. Raises: Interrupted"""
        if not self.joins:
            limit_s = self.config.time_limit_s
            left_s = None if limit_s is None else started + limit_s - time.monotonic()
            self._confirmation.confirm(self.records(), left_s)

    # --- when to stop ---------------------------------------------------------------------------------------------

    def _reason_to_stop(self, started: float, trials: int, left_s: float | None) -> StopReason | None:
        """left_s: seconds until the leader's deadline; None where there is none, or it is this configuration's own"""
        history = self._history
        if history.num_evaluated >= trials:
            return "trials"
        if self.num_distinct is not None and history.num_distinct >= self.num_distinct:
            return "exhausted"
        if history.num_cheap_at_the_end() >= MOST_CHEAP:
            return "nothing-new"
        patience = self.config.patience
        if patience is not None and not has_gained(history.finished(), self.config.objectives, patience):
            return "no-gain"
        if self.config.time_limit_s is not None:
            left_s = started + self.config.time_limit_s - time.monotonic()
        return "time" if left_s is not None and history.mean_seconds > left_s else None

    def _give_up_if_hopeless(self) -> None:
        rule = self._history.common_failure
        if rule is not None and self._evaluated_before < FAILURES_TO_GIVE_UP <= self._history.num_evaluated:
            last = next(record for record in reversed(self._history.finished()) if not record.cheap)
            message = f"the first {self._history.num_evaluated} networks all failed alike: {last.reason}"
            hint = "correct that, then start anew with --fresh"
            raise StudyError(Problem(self._place, rule, message, hint))
