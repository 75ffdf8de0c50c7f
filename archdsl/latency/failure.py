"""Why a latency could not be taken, told as a `MeasureError` whose rule is one of a few reasons."""

from __future__ import annotations

from typing import Literal, get_args

from archdsl.errors import MeasureError, Place, Problem

Reason = Literal[
    "runtime-missing",  # the runtime's library is not installed
    "wrong-artefact",  # the runtime cannot run this kind of artefact, or its shapes are not what was promised
    "exception",  # the runtime raised
    "out-of-memory",  # an allocation failed, or the kernel killed the worker
    "crash",  # the worker died by a signal
    "exit",  # the worker left by itself
    "timeout",  # the deadline passed
    "output-flood",  # the worker printed more than anybody would read
    "not-finite",  # the network's output holds NaN or infinity
    "numeric-gate",  # the network's output is not the expected one
    "no-profile",  # the runtime does not tell what single ops take
    "protocol",  # the worker's answer was not one
]
REASONS: tuple[str, ...] = get_args(Reason)

_ALLOCATION_WORDS = (
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate",
    "out of memory",
)


def failed(reason: Reason, message: str, *, where: str = "worker", hint: str | None = None) -> MeasureError:
    """The error of one failed measurement. `where` stands in for a file name: a runtime or `worker`."""
    return MeasureError(Problem(Place(where), rule=reason, message=message, hint=hint))


def reason_of(error: MeasureError) -> str:
    """Which of `REASONS` a failed measurement has."""
    return error.problems[0].rule


def exception_reason(error: BaseException) -> Reason:
    """`out-of-memory` for every way libraries say it, else `exception`."""
    if isinstance(error, MemoryError):
        return "out-of-memory"
    text = str(error).lower()
    return "out-of-memory" if any(words in text for words in _ALLOCATION_WORDS) else "exception"
