"""A warm child process for measuring: it may crash, hang or eat memory, and that costs one measurement.

The child is a new Python (`subprocess`, never a fork), leader of its own session, so that all it starts can be killed
together. It is reused while healthy, because importing a runtime takes longer than most measurements.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from archdsl.errors import MeasureError
from archdsl.latency.clock.machine import memory_bytes
from archdsl.latency.failure import REASONS, failed, spoils_device
from archdsl.latency.worker.child import Child
from archdsl.latency.worker.frames import FrameError, Message, encode


def default_memory_bytes() -> int:
    """Three quarters of the machine, at most 16 GiB."""
    return min(memory_bytes() * 3 // 4, 16 * 2**30)


class Worker:
    """One child process and the right to send it jobs, one at a time; safe to share between threads.

    threads:          of the runtimes in it; fixed, since libraries read it once
    memory_bytes:     limit on its address space; 0 for none, None for the default
    max_jobs:         after so many it is replaced
    max_output_bytes: it is killed when it prints more in one job

    The process starts with the first job. Use as a context manager, or call `close`.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        memory_bytes: int | None = None,
        max_jobs: int = 200,
        max_output_bytes: int = 32 * 2**20,
    ):
        self.threads, self.max_jobs, self.max_output_bytes = threads, max_jobs, max_output_bytes
        self.memory_bytes = default_memory_bytes() if memory_bytes is None else memory_bytes
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._jobs = 0

    @property
    def pid(self) -> int | None:
        """The process id of the running child, None when there is none."""
        return None if self._child is None else self._child.pid

    def run(self, job: Mapping[str, Any], *, deadline_s: float) -> Message:
        """Send one job and return its result.

        A job may have `more_s`: so much later than `deadline_s` its answer may come, if the worker says after the
        warm-up that the runs take so long.
        Errors: MeasureError when the worker fails, dies, or does not answer within `deadline_s` (start included); it
        is raised within about a second of the deadline. The worker is then replaced at the next job.
        """
        end = time.monotonic() + deadline_s
        try:
            frame = encode(dict(job))
        except (FrameError, ValueError, TypeError) as error:
            raise failed("protocol", f"the job cannot be sent: {error}") from error
        if not self._lock.acquire(timeout=deadline_s):
            raise failed("timeout", f"the worker was busy with another measurement for {deadline_s:g} s")
        try:
            child = self._ready_child(end, deadline_s)
            self._jobs += 1
            reply = _judged(child.ask(frame, end, deadline_s, job.get("more_s", 0.0)), job)
            self._recycle(reply)
            return _result_of(reply)
        except MeasureError:
            raise
        except BaseException:  # Ctrl-C: a job is half done
            self._stop()
            raise
        finally:
            if self._child is not None and self._child.dead:
                self._child = None
            self._lock.release()

    def close(self) -> None:
        """Kill the child, if there is one. A later job starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ready_child(self, end: float, deadline_s: float) -> Child:
        """The running child, or a new one: the old may have been killed, or belong to the process we forked from."""
        if self._child is not None and not self._child.usable():
            self._stop()
        if self._child is None:
            self._child = Child(self.threads, self.memory_bytes, self.max_output_bytes)
            self._jobs = 0
            self._child.wait_ready(end, deadline_s)
        return self._child

    def _recycle(self, reply: Message) -> None:
        """Stop the child after its last job, when memory is short or has piled up, when its GPU is in an error, or when
        it makes no sense."""
        strange = reply.get("kind") not in ("result", "failure")
        ill = reply.get("reason") in ("out-of-memory", "device-error")
        too_big = bool(self.memory_bytes) and reply.get("resident_bytes", 0) > self.memory_bytes // 2
        if strange or ill or too_big or self._jobs >= self.max_jobs:
            self._stop()

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


def _judged(reply: Message, job: Mapping[str, Any]) -> Message:
    """The reply, with `device-error` for a reason when a library on a GPU told of an error of its driver."""
    on_gpu = job.get("target", {}).get("device", "cpu") != "cpu"
    if on_gpu and reply.get("reason") == "exception" and spoils_device(str(reply.get("message"))):
        return {**reply, "reason": "device-error"}
    return reply


def _result_of(reply: Message) -> Message:
    if reply.get("kind") == "result":
        return reply
    if reply.get("kind") == "failure" and reply.get("reason") in REASONS:
        raise failed(reply["reason"], reply["message"], where=reply["where"], hint=reply["hint"])
    raise failed("protocol", f"the worker answered {str(reply)[:200]}")
