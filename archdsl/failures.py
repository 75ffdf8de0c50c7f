"""Why a measurement failed: a `MeasureError` whose rule is one of a few reasons."""

from __future__ import annotations

import re
from typing import Literal, get_args

from archdsl.errors import MeasureError, Place, Problem

Reason = Literal[
    "runtime-missing",  # the runtime's library is not installed
    "wrong-artefact",  # the runtime cannot run this kind of artefact, or its shapes are not what was promised
    "exception",  # the runtime raised
    "out-of-memory",  # an allocation failed, or the kernel killed the worker
    "device-error",  # the GPU's driver is in an error that stays for the rest of the process
    "crash",  # the worker died by a signal
    "exit",  # the worker left by itself
    "timeout",  # the deadline passed
    "too-slow",  # the deadline passed, and it was known that the runs take longer
    "output-flood",  # the worker printed more than anybody would read
    "not-finite",  # the network's output holds NaN or infinity
    "numeric-gate",  # the network's output is not the expected one
    "no-profile",  # the runtime does not tell what single ops take
    "protocol",  # the worker's answer was not one
    "unknown-segment",  # a prediction needs the time of a segment that was not measured
    "extrapolation",  # a prediction would be far from all networks that calibrate it, or there are none
    "not-cut",  # a network that can only be measured whole was to be predicted from segments
    "other-target",  # a prediction was asked for another target than the one measured
    "quarantined",  # it has crashed the worker too often to be tried again
]
REASONS: tuple[str, ...] = get_args(Reason)

_ALLOCATION_WORDS = (
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate",
    "out of memory",
)

_STICKY = re.compile(
    r"cuda (runtime )?error|cudaerror(?!memoryallocation)|cuda_error(?!_out_of_memory)|cuda failure"
    r"|illegal (memory access|address|instruction)|misaligned address|unspecified launch failure|device-side assert",
    re.IGNORECASE,
)


def failed(reason: Reason, message: str, *, where: str = "worker", hint: str | None = None) -> MeasureError:
    """The error of one failed measurement. `where` stands in for a file name: a runtime or `worker`."""
    return MeasureError(Problem(Place(where), rule=reason, message=message, hint=hint))


def reason_of(error: MeasureError) -> str:
    """Which of `REASONS` a failed measurement has."""
    return error.problems[0].rule


def exception_reason(error: BaseException) -> Reason:
    """`out-of-memory` for every wording of it that libraries use, else `exception`."""
    if isinstance(error, MemoryError):
        return "out-of-memory"
    text = str(error).lower()
    return "out-of-memory" if any(words in text for words in _ALLOCATION_WORDS) else "exception"


def spoils_device(message: str) -> bool:
    """Whether a library's message reports a CUDA error after which no result of the same process can be trusted.

    Most of them are sticky: every later call of CUDA fails with the same error, or what it computes is not defined.
    """
    return _STICKY.search(message) is not None
