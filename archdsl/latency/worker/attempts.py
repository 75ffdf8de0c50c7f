"""How often a measurement is tried before it counts as failed, by the reason of its failure.

What may be an accident (a process that died, hung, or found no memory) is tried once more, in a fresh worker: after
each of these the worker replaces its process by itself. What the network or its artefact causes comes out the same
again, and is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from archdsl.errors import MeasureError
from archdsl.latency.failure import reason_of
from archdsl.latency.worker.frames import Message
from archdsl.latency.worker.warm import Worker

RETRIES: Mapping[str, int] = {
    "crash": 1,
    "exit": 1,
    "timeout": 1,
    "device-error": 1,
    "out-of-memory": 1,  # of the same batch: a smaller one would be another target
    "protocol": 1,
    "too-slow": 0,
    "runtime-missing": 0,
    "wrong-artefact": 0,
    "exception": 0,
    "output-flood": 0,
    "not-finite": 0,
    "numeric-gate": 0,
    "no-profile": 0,
    "unknown-segment": 0,
    "extrapolation": 0,
    "other-target": 0,
    "quarantined": 0,
}
"""How often a measurement that failed is tried again, by the reason of its first failure."""

Noted = Callable[[MeasureError], bool]
"""Told of each failure. -> whether the job may be tried again"""


def run_job(worker: Worker, job: Mapping[str, Any], *, deadline_s: float, noted: Noted = lambda error: True) -> Message:
    """The worker's result of a job, which is tried as often as `RETRIES` says; each attempt may take `deadline_s`.

    Errors: MeasureError of the last attempt, whose message says how many there were, if more than one
    """
    reasons: list[str] = []
    while True:
        try:
            return worker.run(job, deadline_s=deadline_s)
        except MeasureError as error:
            reasons.append(reason_of(error))
            again = noted(error) and len(reasons) <= RETRIES[reasons[0]]
            if not again:
                raise _told(error, reasons) from error


def _told(error: MeasureError, reasons: list[str]) -> MeasureError:
    """The error, with the number of attempts in its message."""
    if len(reasons) == 1:
        return error
    alike = all(reason == reasons[-1] for reason in reasons)
    before = "" if alike else f"; before: {', '.join(reasons[:-1])}"
    first, *others = error.problems
    return MeasureError([replace(first, message=f"{first.message} ({len(reasons)} attempts{before})"), *others])
