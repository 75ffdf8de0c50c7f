"""The process in which networks run: what a measurement needs of a supervised child process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from archdsl.failures import REASONS, failed, spoils_device
from archdsl.processes.child import ChildError
from archdsl.processes.frames import Message
from archdsl.processes.limits import Limits
from archdsl.processes.warm import WarmProcess
from archdsl.telemetry.cpu import memory_bytes as memory_of_machine
from archdsl.telemetry.worker_environment import worker_environment


def default_memory_bytes() -> int:
    """Three quarters of the machine, at most 16 GiB."""
    return min(memory_of_machine() * 3 // 4, 16 * 2**30)


class Worker(WarmProcess):
    """One child process and the right to send it jobs, one at a time; safe to share between threads.

    Args:
        threads: of the runtimes in it; fixed, since libraries read it once
        memory_bytes: limit on its address space; 0 for none, None for the default
        max_jobs: after so many it is replaced
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
        self.threads = threads
        self.memory_bytes = default_memory_bytes() if memory_bytes is None else memory_bytes
        super().__init__(
            "archdsl.latency.worker.main",
            partial(worker_environment, threads),
            name="the worker",
            limits=Limits(address_space=self.memory_bytes),
            max_jobs=max_jobs,
            max_output_bytes=max_output_bytes,
        )

    def run(self, job: Mapping[str, Any], *, deadline_s: float) -> Message:
        """Send one job and return its result.

        A job may have `more_s`: so much later than `deadline_s` its answer may come, if the worker says after the
        warm-up that the runs take so long.
        Raises: MeasureError when the worker fails, dies, or does not answer within `deadline_s` (start included); it
        is raised within about a second of the deadline. The worker is then replaced at the next job.
        """
        more_s = job.get("more_s", 0.0)
        try:
            reply = self.ask(job, deadline_s=deadline_s, more_s=more_s, is_spent=partial(self._is_spent, job))
        except ChildError as error:
            hint = error.hint
            if error.reason == "too-slow":
                hint = "give it more time (`archdsl bench --deadline 30min`, `deadline_s`), or fewer images at once"
            raise failed(error.reason, error.message, hint=hint) from error
        return _result_of(_judged(job, reply))

    def _is_spent(self, job: Mapping[str, Any], reply: Message) -> bool:
        """Whether memory is short or has piled up, the GPU is in an error, or the reply makes no sense."""
        strange = reply.get("kind") not in ("result", "failure")
        ill = _judged(job, reply).get("reason") in ("out-of-memory", "device-error")
        return strange or ill or (bool(self.memory_bytes) and reply.get("resident_bytes", 0) > self.memory_bytes // 2)


def _judged(job: Mapping[str, Any], reply: Message) -> Message:
    """The reply, with `device-error` for a reason when a library on a GPU reported an error of its driver."""
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
