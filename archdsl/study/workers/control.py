"""The process that leads workers, and its messages to all of them: the budget, the deadline, and the stop request."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from archdsl.errors import Place, Problem, StudyError
from archdsl.events import Listener
from archdsl.study.events import TrialEnded
from archdsl.study.interrupts import Interrupts
from archdsl.study.storage.history import History
from archdsl.study.storage.leases import Leases
from archdsl.study.storage.process_identity import is_gone, is_here, this_process
from archdsl.study.storage.store import StudyStore
from archdsl.study.workers.local import Workers

PAUSE_S = 0.2
"""Between two polls of the workers."""
_KEY = "budget"
_LEADER = "leader"
_LEADING: set[str] = set()
"""The marks of the searches that this process leads now."""


@contextlib.contextmanager
def leading(store: StudyStore, place: Place) -> Iterator[None]:
    """In the block this process leads the search of a study, whose workers may be at work already.

    Raises: StudyError (`busy`) when another process of this machine, or another search of this one, leads it
    """
    mark = secrets.token_hex(8)
    with store.lock.held():
        leader = store.read(_LEADER)
        if isinstance(leader, Mapping) and _is_leading(leader):
            message = f"process {leader['pid']} is searching this study"
            hint = "wait for it, stop it, join it with `archdsl worker`, or search into another --out"
            raise StudyError(Problem(place, "busy", message, hint))
        store.write(_LEADER, {**this_process(), "mark": mark})
    _LEADING.add(mark)
    try:
        yield
    finally:
        _LEADING.discard(mark)
        with contextlib.suppress(Exception), store.lock.held():  # the block may have ended because the storage failed
            if (store.read(_LEADER) or {}).get("mark") == mark:
                store.write(_LEADER, None)


def _is_leading(leader: Mapping[str, Any]) -> bool:
    """Whether a process of this machine still leads as it wrote; one of another machine cannot be asked."""
    if not is_here(leader) or is_gone(leader):
        return False
    return leader["pid"] != this_process()["pid"] or leader.get("mark") in _LEADING


def publish_budget(store: StudyStore, trials: int, until: float | None) -> None:
    """Publish the budget of a search, and withdraw an older stop request.

    trials: number of networks to evaluate; until: when the search ends, in seconds since 1970; None for no limit
    """
    store.write(_KEY, {"trials": trials, "until": until, "stop": None})


def read_control(store: StudyStore) -> Mapping[str, Any]:
    """The last message: `trials`, `until`, and `stop`, a random word for each stop request; empty before the first."""
    message = store.read(_KEY)
    return message if isinstance(message, Mapping) else {}


def request_stop(store: StudyStore) -> None:
    """Ask every worker of a study, wherever it runs, to end within seconds."""
    store.write(_KEY, {**read_control(store), "stop": secrets.token_hex(4)})


class Leader:
    """Leads the workers of one study: restarts and ends them, and reports the trials they finish. It runs no trial.

    Args:
        leases: acquires none, but requeues the trials of dead workers
        on_event: called with `TrialEnded` for each trial that is finished
    """

    def __init__(self, store: StudyStore, history: History, leases: Leases, interrupts: Interrupts, on_event: Listener):
        self._store, self._history, self._leases = store, history, leases
        self._interrupts, self._on_event = interrupts, on_event
        self._reported = {record.number for record in history.finished()}

    def lead(self, workers: Workers) -> bool:
        """Run the workers until they end, or this process is interrupted.

        Returns: whether it was interrupted
        Raises: StudyError, with the problems that a worker has reported
        """
        interrupted = False
        try:
            workers.start()
            while workers.poll(len(self._reported)):
                self._report_new()
                if self._interrupts.requested:
                    interrupted = True
                    request_stop(self._store)
                    break
                time.sleep(PAUSE_S)
        finally:
            workers.stop()
            with self._store.lock.held() as now:
                self._history.refresh()
                self._leases.requeue_expired(now, self._history.running)
        self._report_new()
        return interrupted

    def _report_new(self) -> None:
        self._history.refresh()
        for record in self._history.finished():
            if record.number not in self._reported:
                self._on_event(TrialEnded(record))
                self._reported.add(record.number)
