"""Leases: which worker runs a trial, and until when no other may take it.

A running trial carries its holder (host, process, a random mark of the lease) and the time until which it is leased.
The holder renews the lease while it works. A trial whose lease has expired, or whose holder is dead, is requeued by
any worker that notices, and is asked for again under its number. Who holds a trial is decided while the study's lock is
held (`storage.locks`), and each write of a holder first checks that it still is the holder. So a worker that was only
halted, and continues when its trial has long been given to another, changes nothing, and each trial is finished once.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from archdsl.study.record import PREFIX
from archdsl.study.storage.process_identity import is_gone, is_here, is_stopped, this_process
from archdsl.study.storage.store import StudyStore

LEASE_S = 60.0
RENEWALS_A_LEASE = 4
PATIENCE = 5
"""So many leases a worker of this machine may be late while it is running: it is starved, or its clock jumped."""
MOST_REQUEUED = 20
"""A trial whose workers died so often is failed: trainings and timings have processes of their own, so something about
its network must kill them. Fewer would spoil a study that was merely killed often, which is to continue exactly."""
_PULSE_S = 2.0


class LeaseLost(Exception):
    """This worker no longer holds the trial. What it has found out about the network is not counted."""

    def __init__(self, number: int):
        super().__init__(f"trial {number} was given to another worker")
        self.number = number


@dataclass
class Lease:
    """A trial that this worker holds. mark: a random word of this lease; until: it cannot have expired before that"""

    trial: Trial
    mark: str
    until: float

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number


class Leases:
    """The leases of one worker on one study. While entered, a thread renews them.

    lease_s: seconds that a lease holds; it is renewed four times as often
    pulse: called by that thread every two seconds or more often
    """

    def __init__(self, store: StudyStore, *, lease_s: float = LEASE_S, pulse: Callable[[], None] = lambda: None):
        self.worker = secrets.token_hex(8)
        self.lease_s, self.renew_s = lease_s, lease_s / RENEWALS_A_LEASE
        self._store, self._pulse = store, pulse
        self._held: dict[str, Lease] = {}
        self._mutex = threading.Lock()  # of `_held`
        self._num_acquired = 0
        self._thread = contextlib.ExitStack()
        self._renew_at = 0.0

    def __enter__(self) -> Leases:
        self._renew_at = time.monotonic() + self.renew_s
        self._thread.enter_context(repeated("archdsl-leases", min(_PULSE_S, self.renew_s), self._tick))
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.close()
        with self._mutex:
            self._held.clear()  # a trial that is held now was left by an exception: its lease expires

    # --- acquiring and releasing ------------------------------------------------------------------------------------

    def acquire(self, now: float) -> Lease:
        """Ask the study for a trial and lease it. Only while the study's lock is held. now: the lock's time"""
        self._num_acquired += 1
        lease = Lease(self._store.study.ask(), f"{self.worker}-{self._num_acquired}", now + self.lease_s)
        self._store.write_trial(lease.trial, {"owner": lease_holder(lease.mark, now, self.lease_s)})
        with self._mutex:
            self._held[lease.mark] = lease
        return lease

    @contextlib.contextmanager
    def held(self, lease: Lease, *, durable: bool = False) -> Iterator[None]:
        """Hold the study's lock while the trial is this worker's.

        durable: as of `StudyLock.held`
        Raises: LeaseLost when the trial is not this worker's any more
        """
        with self._store.lock.held(durable=durable) as now:
            if not self._is_mine(lease, now):
                self._forget(lease)
                raise LeaseLost(lease.number)
            yield

    def write(self, lease: Lease, values: Mapping[str, Any]) -> None:
        """Write attributes of the trial. Raises: LeaseLost"""
        with self.held(lease):
            self.write_held(lease, values)

    def write_held(self, lease: Lease, values: Mapping[str, Any]) -> None:
        """Write attributes of the trial; only in a block of `held`."""
        self._store.write_trial(lease.trial, values)

    def finish(
        self,
        lease: Lease,
        state: TrialState,
        values: Sequence[float] | None,
        attributes: Mapping[str, Any],
        constrain: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        """Finish the trial durably: once, and by its holder alone.

        constrain: called first, to set the trial's constraints
        Raises: LeaseLost; UpdateFinishedTrialError
        """
        with self.held(lease, durable=True):
            constrain(lease.trial)
            self._store.write_trial(lease.trial, attributes)
            self._store.finish(lease.trial, state, values)
        self._forget(lease)

    def release(self, lease: Lease) -> None:
        """Requeue the trial; nothing is done when it is another worker's already."""
        with contextlib.suppress(LeaseLost), self.held(lease):
            self._requeue(lease.trial)
        self._forget(lease)

    # --- leases of other workers ------------------------------------------------------------------------------------

    def requeue_expired(self, now: float, running: Sequence[FrozenTrial]) -> list[int]:
        """Requeue the trials whose holders are dead or have let their leases expire, and return their numbers.

        Only while the study's lock is held. A trial that has lost `MOST_REQUEUED` holders is failed instead.
        """
        requeued = []
        for trial in running:
            holder = trial.user_attrs.get(PREFIX + "owner")
            if not has_expired(holder, now):
                continue
            if isinstance(holder, Mapping) and holder.get("worker") in self._held:
                continue  # it is this worker's, which is alive: renewed in a moment
            times = trial.user_attrs.get(PREFIX + "put_back", 0) + 1
            self._store.write_trial(trial, {"put_back": times})
            if times > MOST_REQUEUED:
                reason = f"{times} workers in a row died or fell silent while they worked on it"
                self._store.write_trial(trial, {"rule": "worker-lost", "reason": reason, "cheap": False})
                self._store.finish(trial, TrialState.FAIL)
            else:
                self._requeue(trial)
            requeued.append(trial.number)
        return requeued

    def _requeue(self, trial: Trial | FrozenTrial) -> None:
        self._store.write_trial(trial, {"owner": None, "waits_for": None})
        self._store.requeue(trial)

    # --- the holder -------------------------------------------------------------------------------------------------

    def _is_mine(self, lease: Lease, now: float) -> bool:
        """Whether the trial is still this worker's. The storage is not read while the lease cannot have expired."""
        if self._store.lock.one_clock and now < lease.until:
            return True
        trial = self._store.stored(lease.trial)
        holder = trial.user_attrs.get(PREFIX + "owner")
        mine = isinstance(holder, Mapping) and holder.get("worker") == lease.mark
        return mine and trial.state == TrialState.RUNNING

    def _forget(self, lease: Lease) -> None:
        with self._mutex:
            self._held.pop(lease.mark, None)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._pulse()
        if time.monotonic() >= self._renew_at:
            self._renew()
            self._renew_at = time.monotonic() + self.renew_s

    def _renew(self) -> None:
        with self._mutex:
            held = list(self._held.values())
        if not held:
            return
        with self._store.lock.held() as now:
            mine = [lease for lease in held if self._is_mine(lease, now)]  # the worker notices when it writes
            for lease in mine:
                self._store.write_trial(lease.trial, {"owner": lease_holder(lease.mark, now, self.lease_s)})
        for lease in mine:  # not before it is committed
            lease.until = now + self.lease_s


@contextlib.contextmanager
def repeated(name: str, every_s: float, action: Callable[[], None]) -> Iterator[None]:
    """In the block a thread of this name calls `action` every so many seconds.

    Whatever it raises is ignored: the next call may succeed, and if none does, what it renews expires.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            with contextlib.suppress(Exception):
                action()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)


def lease_holder(mark: str, now: float, lease_s: float) -> dict[str, Any]:
    """This process as the holder of a lease that begins now. mark: a random word of the lease"""
    return {**this_process(), "worker": mark, "lease_until": round(now + lease_s, 3), "lease_s": lease_s}


def has_expired(holder: Any, now: float) -> bool:
    """Whether a trial with this holder may be given to another worker.

    The lease of a dead process of this machine has expired. That of one that is halted or elsewhere expires at its
    time; that of one that is plainly running, `PATIENCE` leases later, since then rather the clock or the disk is to
    blame. A trial without a holder was being acquired when its worker died, since that is one block of the lock.
    """
    if not isinstance(holder, Mapping) or is_gone(holder):
        return True
    until = holder.get("lease_until")
    if not isinstance(until, int | float):
        return False  # written by an older version
    if is_here(holder) and not is_stopped(holder):
        until += PATIENCE * float(holder.get("lease_s", LEASE_S))
    return bool(now > until)
