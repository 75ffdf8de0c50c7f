"""What one process finds out for a whole study: the first that needs it does the work, and all others read it.

It is kept among the study's own attributes, so it is there when the study is resumed, and on every machine that works
at it. Who is at it holds a claim, as a trial's holder holds a lease: it is renewed while the work goes on, and when it
passes, or its process is dead, the next one begins anew.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import optuna

from archdsl.study.crew.interrupts import Interrupts
from archdsl.study.record import PREFIX
from archdsl.study.storage.leases import LEASE_S, RENEWALS_A_LEASE, has_passed
from archdsl.study.storage.owner import is_here, owner
from archdsl.study.storage.turns import Turns

PAUSE_S = 0.2
"""Between two looks at whether another process has found it out."""


class Once:
    """Finds things out for one study. lease_s: seconds after which the claim of a silent process passes"""

    def __init__(self, study: optuna.Study, turns: Turns, interrupts: Interrupts, *, lease_s: float = LEASE_S):
        self._study, self._turns, self._interrupts, self._lease_s = study, turns, interrupts, lease_s
        self._mark = secrets.token_hex(8)

    def __call__(self, name: str, find_out: Callable[[], Any]) -> Any:
        """What the study keeps under `name`: plain data, found out now if nobody has.

        A signal may break in, and then the next that asks begins anew; so it is when `find_out` raises.
        Errors: Interrupted; what `find_out` raises
        """
        while not self._claimed(name):
            with self._interrupts.open():
                time.sleep(PAUSE_S)
        if (kept := self.kept(name)) is not None:
            return kept
        try:
            with self._renewed(name), self._interrupts.open():
                found = find_out()
        except BaseException:
            with contextlib.suppress(Exception), self._turns.taken():
                if self._is_mine(name):
                    self._write(f"{name}:claim", None)
            raise
        with self._turns.taken(durable=True):
            if self.kept(name) is None:  # else somebody thought us dead, and was first
                self._write(name, found)
        return self.kept(name)

    def kept(self, name: str) -> Any:
        """What the study keeps under `name`; None where nothing was found out."""
        return self._study._storage.get_study_user_attrs(self._study._study_id).get(PREFIX + name)

    def busy(self, name: str, now: float) -> int | None:
        """The id of another process of this machine that is finding it out; None for none."""
        claim = self.kept(f"{name}:claim")
        if self.kept(name) is not None or not isinstance(claim, dict) or claim.get("worker") == self._mark:
            return None
        return int(claim["pid"]) if is_here(claim) and not has_passed(claim, now) else None

    def _claimed(self, name: str) -> bool:
        """Whether there is nothing to wait for: it is known, or ours to find out."""
        with self._turns.taken() as now:
            if self.kept(name) is not None:
                return True
            claim = self.kept(f"{name}:claim")
            if claim is not None and not has_passed(claim, now):
                return False
            self._claim(name, now)
            return True

    def _claim(self, name: str, now: float) -> None:
        until = round(now + self._lease_s, 3)
        claim = {**owner(), "worker": self._mark, "lease_until": until, "lease_s": self._lease_s}
        self._write(f"{name}:claim", claim)

    def _is_mine(self, name: str) -> bool:
        claim = self.kept(f"{name}:claim")
        return isinstance(claim, dict) and claim.get("worker") == self._mark

    def _write(self, name: str, value: Any) -> None:
        self._study._storage.set_study_user_attr(self._study._study_id, PREFIX + name, value)

    @contextlib.contextmanager
    def _renewed(self, name: str) -> Iterator[None]:
        """A thread renews the claim meanwhile."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._lease_s / RENEWALS_A_LEASE):
                with contextlib.suppress(Exception), self._turns.taken() as now:  # the next try may succeed
                    if self._is_mine(name):
                        self._claim(name, now)

        thread = threading.Thread(target=renew, name="archdsl-claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=10)
