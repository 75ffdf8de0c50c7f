"""How often a measurement is tried before it counts as failed, by the reason of its failure.

A failure that may be an accident (a process that died, hung, or found no memory) is tried once more, in a new process:
after each of these the worker replaces its process. A failure that the network or its artefact causes is reported at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from archdsl.errors import MeasureError
from archdsl.failures import REASONS, reason_of
from archdsl.latency.worker.warm import Worker
from archdsl.processes.frames import Message

ACCIDENTS = ("crash", "exit", "timeout", "device-error", "out-of-memory", "protocol")
"""Memory that ran out is tried again with the same batch: a smaller one would be another target."""

RETRIES: Mapping[str, int] = {reason: int(reason in ACCIDENTS) for reason in REASONS}
"""How often a measurement that failed is tried again, by the reason of its first failure."""

OnFailure = Callable[[MeasureError], bool]
"""Called with each failure; returns whether the job may be tried again."""


def run_job(
    worker: Worker, job: Mapping[str, Any], *, deadline_s: float, on_failure: OnFailure = lambda error: True
) -> Message:
    """The worker's result of a job, which is tried as often as `RETRIES` says; each attempt may take `deadline_s`.

    Raises: MeasureError of the last attempt, whose message says how many there were, if more than one
    """
    reasons: list[str] = []
    while True:
        try:
            return worker.run(job, deadline_s=deadline_s)
        except MeasureError as error:
            reasons.append(reason_of(error))
            again = on_failure(error) and len(reasons) <= RETRIES[reasons[0]]
            if not again:
                raise _with_attempts(error, reasons) from error


def _with_attempts(error: MeasureError, reasons: list[str]) -> MeasureError:
    """The error, with the number of attempts in its message."""
    if len(reasons) == 1:
        return error
    alike = all(reason == reasons[-1] for reason in reasons)
    before = "" if alike else f"; before: {', '.join(reasons[:-1])}"
    first, *others = error.problems
    return MeasureError([replace(first, message=f"{first.message} ({len(reasons)} attempts{before})"), *others])
