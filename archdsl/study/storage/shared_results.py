"""Results that one process computes for a whole study: the first that needs one computes it, and all others read it.

A result is an attribute of the study, so it is there when the study is resumed, and on every machine that works on it.
The process that computes it holds a claim, as a trial's holder holds a lease: the claim is renewed during the work, and
when it has expired, or its process is dead, the next process starts again.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from archdsl.study.interrupts import Interrupts
from archdsl.study.storage.leases import LEASE_S, RENEWALS_A_LEASE, has_expired, lease_holder, repeated
from archdsl.study.storage.store import StudyStore

PAUSE_S = 0.2
"""Between two checks whether another process has computed the result."""


class SharedResults:
    """The shared results of one study. lease_s: seconds after which the claim of a silent process expires"""

    def __init__(self, store: StudyStore, interrupts: Interrupts, *, lease_s: float = LEASE_S):
        self._store, self._interrupts, self._lease_s = store, interrupts, lease_s
        self._mark = secrets.token_hex(8)

    def compute_once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return the study's result called `name`, and compute it now if no process has.

        A signal may interrupt the computation. After that, or when `compute` raises, the next caller starts again.

        Args: compute: returns plain data
        Raises: Interrupted; what `compute` raises
        """
        while not self._claimed(name):
            with self._interrupts.interruptible():
                time.sleep(PAUSE_S)
        if (result := self.read(name)) is not None:
            return result
        try:
            every_s = self._lease_s / RENEWALS_A_LEASE
            with repeated("archdsl-claim", every_s, partial(self._renew, name)), self._interrupts.interruptible():
                result = compute()
        except BaseException:
            with contextlib.suppress(Exception), self._store.lock.held():
                if self._is_mine(name):
                    self._store.write(f"{name}:claim", None)
            raise
        with self._store.lock.held(durable=True):
            if self.read(name) is None:  # otherwise this claim had expired, and another process was first
                self._store.write(name, result)
        return self.read(name)

    def read(self, name: str) -> Any:
        """The study's result called `name`; None where none was computed."""
        return self._store.read(name)

    def _claimed(self, name: str) -> bool:
        """Whether there is nothing to wait for: the result is there, or this process is to compute it."""
        with self._store.lock.held() as now:
            if self.read(name) is not None:
                return True
            claim = self.read(f"{name}:claim")
            if claim is not None and not has_expired(claim, now):
                return False
            self._claim(name, now)
            return True

    def _claim(self, name: str, now: float) -> None:
        self._store.write(f"{name}:claim", lease_holder(self._mark, now, self._lease_s))

    def _is_mine(self, name: str) -> bool:
        claim = self.read(f"{name}:claim")
        return isinstance(claim, dict) and claim.get("worker") == self._mark

    def _renew(self, name: str) -> None:
        with self._store.lock.held() as now:
            if self._is_mine(name):
                self._claim(name, now)
