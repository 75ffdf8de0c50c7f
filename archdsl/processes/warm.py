"""A child process that is kept between jobs, since importing torch or a runtime takes longer than many jobs.

The child is a new Python (`subprocess`, never a fork), leader of its own session, so that all it starts can be killed
together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from archdsl.processes.child import START_S, Child, ChildError, OnProgress
from archdsl.processes.frames import FrameError, Message, encode
from archdsl.processes.limits import UNLIMITED, Limits


class WarmProcess:
    """One child process and the right to send it jobs, one at a time; safe to share between threads.

    Args:
        module: whose `main(arguments)` is run; it calls `channel.connect(arguments)` and answers jobs
        environment: gives the child's environment variables at each start
        name: of the child in messages, such as "the worker"
        limits: of its memory
        max_jobs: after so many it is replaced; None for never
        max_output_bytes: it is killed when it prints more in one job; None for no limit
        start_s: how long a start may take, in seconds

    The process starts with the first job. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        module: str,
        environment: Callable[[], Mapping[str, str]],
        *,
        name: str,
        limits: Limits = UNLIMITED,
        max_jobs: int | None = None,
        max_output_bytes: int | None = None,
        start_s: float = START_S,
    ):
        self.module, self.environment, self.name, self.limits = module, environment, name, limits
        self.max_jobs, self.max_output_bytes, self.start_s = max_jobs, max_output_bytes, start_s
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._jobs = 0

    @property
    def pid(self) -> int | None:
        """The process id of the running child, None when there is none."""
        return None if self._child is None else self._child.pid

    def ask(
        self,
        job: Mapping[str, Any],
        *,
        deadline_s: float,
        more_s: float = 0.0,
        on_progress: OnProgress | None = None,
        is_spent: Callable[[Message], bool] = lambda reply: False,
    ) -> Message:
        """Send one job and return the reply.

        Args:
            deadline_s: how long the reply may take, in seconds, the start of the process included
            more_s: how much later it may come when a progress message says that a step takes so long
            on_progress: called with each progress message; with it, `deadline_s` counts from the last of them
            is_spent: whether the child is to be replaced after this reply
        Raises: ChildError when the child fails, dies or does not reply in time (within about a second of the deadline);
            it is then replaced at the next job
        """
        end = time.monotonic() + deadline_s
        try:
            frame = encode(dict(job))
        except (FrameError, ValueError, TypeError) as error:
            raise ChildError("protocol", f"the job cannot be sent: {error}") from error
        if not self._lock.acquire(timeout=min(deadline_s, threading.TIMEOUT_MAX)):
            raise ChildError("timeout", f"{self.name} was busy with another job for {deadline_s:g} s")
        try:
            child = self._ready_child(end, deadline_s)
            self._jobs += 1
            reply = child.ask(frame, end, deadline_s, more_s, on_progress)
            if is_spent(reply) or self._jobs == self.max_jobs:
                self._stop()
            return reply
        except ChildError:
            raise
        except BaseException:  # Ctrl-C: a job is half done
            self._stop()
            raise
        finally:
            if self._child is not None and self._child.dead:
                self._child = None
            self._lock.release()

    def close(self) -> None:
        """Kill the child, if there is one, after the job that it is doing. A later job starts another."""
        with self._lock:
            self._stop()

    def kill(self) -> None:
        """Kill the child at once. A job that it is doing, for another thread, ends with ChildError."""
        while not self._lock.acquire(timeout=0.02):
            if (child := self._child) is not None:
                child.signal_kill()
        try:
            self._stop()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ready_child(self, end: float, deadline_s: float) -> Child:
        """The running child, or a new one: the old may have been killed, or belong to the process we forked from."""
        if self._child is not None and not self._child.usable():
            self._stop()
        if self._child is None:
            self._child = Child(self.module, self.environment(), self.name, self.limits, self.max_output_bytes)
            self._jobs = 0
            self._child.wait_ready(end, deadline_s, self.start_s)
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
