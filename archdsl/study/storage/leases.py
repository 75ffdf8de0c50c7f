"""Leases: who works on a trial, and until when others leave it alone.

A running trial carries its holder (host, process, a random word for this campaign) and the time until which the trial
is leased. The holder renews the lease while it lives. Whoever finds a lease passed, or its holder dead, puts the trial
back, so that it is asked for again under its number. Everything about who holds a trial happens in a turn (`turns.py`),
and every write of a holder first looks whether it still is one: so a worker that was only stopped, and comes back when
its trial has long been given to another, can change nothing, and each trial is finished once.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from archdsl.study.record import PREFIX
from archdsl.study.storage.attributes import write_attributes
from archdsl.study.storage.owner import is_gone, is_here, is_stopped, owner
from archdsl.study.storage.turns import Turns

LEASE_S = 60.0
RENEWALS_A_LEASE = 4
PATIENCE = 5
"""So many leases a worker of this machine may be late that is plainly there: it is starved, or its clock jumped."""
MOST_PUT_BACK = 20
"""A trial whose workers died so often is failed: trainings and timings have processes of their own, so something about
its network must kill them. Fewer would spoil a study that was merely killed often, which is to go on exactly."""
_PULSE_S = 2.0


class Lost(Exception):
    """This worker no longer holds the trial; what it found out about it is not counted."""

    def __init__(self, number: int):
        super().__init__(f"trial {number} was given to another worker")
        self.number = number


@dataclass
class Lease:
    """A trial that this worker holds. mark: a word of this lease alone; until: it cannot have passed before that"""

    trial: Trial
    mark: str
    until: float

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def trial_id(self) -> int:
        return self.trial._trial_id


class Leases:
    """The leases of one worker on one study. While entered, a thread renews them.

    lease_s: seconds that a lease holds; it is renewed four times as often
    pulse: called by that thread every two seconds or oftener
    """

    def __init__(
        self,
        study: optuna.Study,
        turns: Turns,
        *,
        lease_s: float = LEASE_S,
        pulse: Callable[[], None] = lambda: None,
    ):
        self.worker = secrets.token_hex(8)
        self.lease_s, self.renew_s = lease_s, lease_s / RENEWALS_A_LEASE
        self._study, self._storage, self._turns, self._pulse = study, study._storage, turns, pulse
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()  # of `_held`
        self._num_taken = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Leases:
        self._ended.clear()
        self._thread = threading.Thread(target=self._renew_for_ever, name="archdsl-leases", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._lock:
            self._held.clear()  # what is still held now was given up by an exception: its lease passes

    # --- taking and giving back ------------------------------------------------------------------------------------

    def take(self, now: float) -> Lease:
        """Ask the study for a trial and hold it. Only in a turn; `now` is its time."""
        self._num_taken += 1
        lease = Lease(self._study.ask(), f"{self.worker}-{self._num_taken}", now + self.lease_s)
        self._write(lease.trial_id, {"owner": self._holder(lease, now)})
        with self._lock:
            self._held[lease.mark] = lease
        return lease

    @contextlib.contextmanager
    def holding(self, lease: Lease, *, durable: bool = False) -> Iterator[None]:
        """A turn in which the trial is this worker's. Errors: Lost when it is not any more"""
        with self._turns.taken(durable=durable) as now:
            if not self._is_mine(lease, now):
                self._forget(lease)
                raise Lost(lease.number)
            yield

    def keep(self, lease: Lease, values: Mapping[str, Any]) -> None:
        """Write attributes of the trial. Errors: Lost"""
        with self.holding(lease):
            self.write(lease, values)

    def write(self, lease: Lease, values: Mapping[str, Any]) -> None:
        """Write attributes of the trial; only while `holding` it."""
        self._write(lease.trial_id, values)

    def settle(
        self,
        lease: Lease,
        state: TrialState,
        values: Sequence[float] | None,
        attributes: Mapping[str, Any],
        constrain: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        """Finish the trial: once and by its holder alone. Errors: Lost"""
        with self.holding(lease, durable=True):
            constrain(lease.trial)
            self._write(lease.trial_id, attributes)
            # not `Study.tell`: it reads the trial three times more, and its samplers learn nothing from being told
            self._storage.set_trial_state_values(lease.trial_id, state, values)
        self._forget(lease)

    def give_back(self, lease: Lease) -> None:
        """Let the trial wait to be asked for again; nothing when it is another's already."""
        with contextlib.suppress(Lost), self.holding(lease):
            self._put_back(lease.trial_id)
        self._forget(lease)

    # --- those of others ------------------------------------------------------------------------------------------

    def reap(self, now: float, running: Sequence[FrozenTrial]) -> list[int]:
        """Put back the trials whose holders are dead or have let their leases pass. -> their numbers

        Only in a turn. A trial that has lost `MOST_PUT_BACK` holders is failed instead.
        """
        reaped = []
        for trial in running:
            holder = trial.user_attrs.get(PREFIX + "owner")
            if not has_passed(holder, now):
                continue
            if isinstance(holder, Mapping) and holder.get("worker") in self._held:
                continue  # it is ours, and we are here: renewed in a moment
            times = trial.user_attrs.get(PREFIX + "put_back", 0) + 1
            self._write(trial._trial_id, {"put_back": times})
            if times > MOST_PUT_BACK:
                reason = f"{times} workers in a row died or fell silent while they worked on it"
                self._write(trial._trial_id, {"rule": "worker-lost", "reason": reason, "cheap": False})
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            else:
                self._put_back(trial._trial_id)
            reaped.append(trial.number)
        return reaped

    def _put_back(self, trial_id: int) -> None:
        """Make a running trial wait again. Optuna has no public word for this; what it has suggested is kept."""
        self._write(trial_id, {"owner": None, "waits_for": None})
        self._storage.set_trial_state_values(trial_id, state=TrialState.WAITING)

    # --- writing ---------------------------------------------------------------------------------------------------

    def _holder(self, lease: Lease, now: float) -> dict[str, Any]:
        until = round(now + self.lease_s, 3)
        return {**owner(), "worker": lease.mark, "lease_until": until, "lease_s": self.lease_s}

    def _is_mine(self, lease: Lease, now: float) -> bool:
        """Whether the trial is still this worker's. While its lease cannot have passed, nobody need be asked."""
        if self._turns.one_clock and now < lease.until:
            return True
        trial = self._storage.get_trial(lease.trial_id)
        holder = trial.user_attrs.get(PREFIX + "owner")
        mine = isinstance(holder, Mapping) and holder.get("worker") == lease.mark
        return mine and trial.state == TrialState.RUNNING

    def _write(self, trial_id: int, values: Mapping[str, Any]) -> None:
        write_attributes(self._storage, trial_id, values)

    def _forget(self, lease: Lease) -> None:
        with self._lock:
            self._held.pop(lease.mark, None)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _renew_for_ever(self) -> None:
        pulse_s = min(_PULSE_S, self.renew_s)
        since_renewal = 0.0
        while not self._ended.wait(pulse_s):
            since_renewal += pulse_s
            with contextlib.suppress(Exception):  # the next try may succeed; if none does, the leases pass
                self._pulse()
                if since_renewal >= self.renew_s:
                    self._renew()
                    since_renewal = 0.0

    def _renew(self) -> None:
        with self._lock:
            held = list(self._held.values())
        if not held:
            return
        with self._turns.taken() as now:
            mine = [lease for lease in held if self._is_mine(lease, now)]  # else the worker finds out when it writes
            for lease in mine:
                self._write(lease.trial_id, {"owner": self._holder(lease, now)})
        for lease in mine:  # not before it is written for good
            lease.until = now + self.lease_s


def has_passed(holder: Any, now: float) -> bool:
    """Whether a trial with this holder may be given to another.

    A dead process of this machine holds nothing; one that is halted or elsewhere, until its lease passes; one that is
    plainly running, some leases longer, since then rather the clock or the disk is to blame. Without a holder a trial
    was being taken when its worker died: that is done in one turn.
    """
    if not isinstance(holder, Mapping) or is_gone(holder):
        return True
    until = holder.get("lease_until")
    if not isinstance(until, int | float):
        return False  # written by an older version
    if is_here(holder) and not is_stopped(holder):
        until += PATIENCE * float(holder.get("lease_s", LEASE_S))
    return bool(now > until)
