"""The state of the processor: its name, its load, and which cores were used by others.

Linux reports the most (/proc); elsewhere the answers are coarser or None, never an error.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_STAT = Path("/proc/stat")
_TASKS = Path("/proc/self/task")


@cache
def cpu_name() -> str:
    """The processor with what tells its generations apart, such as `AMD EPYC family 25 model 1, 2 cores`."""
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = facts.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    generation = "".join(f" {word} {facts[key]}" for word, key in _GENERATION if key in facts)
    return f"{name}{generation}, {os.cpu_count() or 1} cores"


_GENERATION = (("family", "cpu family"), ("model", "model"))


def clock_state(core: int = 0) -> str:
    """The frequency governor of a core, or `unlocked` where there is none to ask (a virtual machine, say)."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor").read_text(encoding="ascii").strip()
    except OSError:
        return "unlocked"


def load_average() -> float:
    """Runnable processes, averaged over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def allowed_cores() -> tuple[int, ...] | None:
    """The cores this process may use, or None where a process cannot be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return tuple(sorted(os.sched_getaffinity(0)))


def memory_bytes() -> int:
    """Physical memory, or what the control group leaves of it."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit)) if limit != "max" else total
    except (OSError, ValueError):
        return total


def busy_seconds() -> dict[int, float] | None:
    """Seconds each core has been at work since boot, time stolen by a hypervisor included; None if unknown."""
    try:
        lines = _STAT.read_text(encoding="ascii").splitlines()
        tick = 1 / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    busy = {}
    for line in lines:
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            user, nice, system, _idle, _wait, irq, softirq, *rest = (int(field) for field in fields)
            busy[int(name[3:])] = (user + nice + system + irq + softirq + sum(rest[:1])) * tick
    return busy or None


def waiting_seconds() -> float | None:
    """Seconds that this process's threads were ready to run while another process had their core; None if unknown."""
    try:
        threads = list(_TASKS.iterdir())
    except OSError:
        return None
    total = 0.0
    for thread in threads:
        try:
            total += int((thread / "schedstat").read_text(encoding="ascii").split()[1]) * 1e-9
        except FileNotFoundError:
            continue  # the thread has ended
        except (OSError, ValueError, IndexError):
            return None
    return total


def quietest_cores(cores: tuple[int, ...] | None, num: int, watch_s: float = 0.06) -> tuple[int, ...] | None:
    """The `num` of `cores` that others use least just now; all of them if there are no more, None for None.

    Looks on for `watch_s`. Of equals the highest is taken: interrupts tend to land on the lowest.
    """
    if cores is None or num >= len(cores):
        return cores
    before = busy_seconds()
    time.sleep(watch_s)
    after = busy_seconds()
    if before is None or after is None:
        return cores[-num:]
    by_load = sorted(cores, key=lambda core: (after.get(core, 0.0) - before.get(core, 0.0), -core))
    return tuple(sorted(by_load[:num]))


def pin_to(cores: tuple[int, ...] | None) -> None:
    """Keep every thread of this process, and those to come, on `cores`."""
    if cores is None:
        return
    for thread in _TASKS.iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:
            continue


@dataclass(frozen=True)
class Usage:
    """What others did while something ran, as shares of the time.

    waited:          our threads were ready but another process had the core
    others_on_ours:  our cores worked for others
    busy_neighbours: cores (a number, not a share) that did other work, on the whole machine
    """

    waited: float | None
    others_on_ours: float | None
    busy_neighbours: float | None


class Watch:
    """Measures usage between its making and a call of `usage`."""

    SHORTEST_S = 0.25
    """Below this the system's 10 ms ticks say nothing about cores."""

    def __init__(self, cores: tuple[int, ...] | None):
        self.cores = cores
        self._busy, self._waited = busy_seconds(), waiting_seconds()
        self._cpu, self._clock = time.process_time(), time.perf_counter()

    def usage(self) -> Usage:
        elapsed = max(1e-9, time.perf_counter() - self._clock)
        own = time.process_time() - self._cpu
        waited, busy = waiting_seconds(), busy_seconds()
        share = None if waited is None or self._waited is None else max(0.0, waited - self._waited) / elapsed
        if busy is None or self._busy is None or elapsed < self.SHORTEST_S:
            return Usage(share, None, None)
        worked = {core: busy[core] - self._busy.get(core, 0.0) for core in busy}
        neighbours = max(0.0, sum(worked.values()) - own) / elapsed
        on_ours = None
        if self.cores:
            on_ours = max(0.0, sum(worked.get(core, 0.0) for core in self.cores) - own) / elapsed / len(self.cores)
        return Usage(share, on_ours, neighbours)
