"""Which timings of the cache are meant: by runtime, age, how they were taken, and whose machine they are of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from archdsl.backends.trt.library import gpu_name, has_gpu_driver
from archdsl.errors import ArchError
from archdsl.latency.cache.entry import Entry
from archdsl.latency.clock.machine import cpu_name
from archdsl.latency.runtimes import RUNTIMES, runtime


@dataclass(frozen=True)
class Filter:
    """What all given conditions hold for; without any, everything.

    runtimes:       the timing is of one of these
    older_than_s:   it was taken longer ago, in seconds
    contended:      somebody else used the cores meanwhile
    other_machines: it was taken on a device that this machine does not have
    damaged:        the row's checksum does not fit, or this archdsl cannot read its timing
    """

    runtimes: tuple[str, ...] = ()
    older_than_s: float | None = None
    contended: bool = False
    other_machines: bool = False
    damaged: bool = False

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return self != Filter()

    def takes(self, entry: Entry, now: datetime | None = None) -> bool:
        timing, taken = entry.timing, entry.taken
        if self.runtimes and entry.runtime not in self.runtimes:
            return False
        if self.older_than_s is not None:
            age = None if taken is None else ((now or datetime.now(UTC)) - taken).total_seconds()
            if age is None or age <= self.older_than_s:
                return False
        if self.contended and not (timing and timing.contended):
            return False
        if self.damaged and timing is not None:
            return False
        return not self.other_machines or is_of_another_machine(entry)


def is_of_another_machine(entry: Entry) -> bool:
    """Whether the fingerprint names a device that this machine does not have, whatever runtimes are installed here.

    A fingerprint that cannot be read says nothing, and neither does a GPU that has a driver but cannot be asked.
    """
    parts = entry.fingerprint.split(" | ")
    if len(parts) < 2:
        return False
    device, _, name = parts[1].partition(" ")
    if device == "cuda":
        here = _gpu_here()
        return not has_gpu_driver() if here is None else name != here
    return name not in (cpu_name(), _device_here(entry.runtime, device))


@cache
def _gpu_here() -> str | None:
    return gpu_name()


@cache
def _device_here(runtime_name: str, device: str) -> str | None:
    """What the runtime calls this machine's device; None when there is none."""
    try:
        return runtime(runtime_name).device_name(device) if runtime_name in RUNTIMES else None
    except (ArchError, ImportError, OSError, RuntimeError):
        return None
