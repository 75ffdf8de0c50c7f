"""Times zero-argument callables: warm-up until stable, repeats within a budget, several callables in turns.

The clock is `perf_counter_ns`; beside it runs the CPU clock of the process (all its threads), and before and after the
system is asked who else was at work. Nothing here knows about networks.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from archdsl.latency.machine import Usage, Watch, load_average

METHOD = 1
"""Goes into the cache key: raise it when a change here makes old timings incomparable."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Pace:
    """How long to time, for each callable.

    budget_s:    stop after this many seconds of runs, once min_runs are there
    min_runs:    fewer than this only when three budgets are spent, and never fewer than FEWEST_RUNS
    max_runs:    stop at this many
    warmup_s:    warm up at most this long
    """

    budget_s: float = 2.0
    min_runs: int = 20
    max_runs: int = 5000
    warmup_s: float = 1.0

    def __post_init__(self) -> None:
        if not (self.budget_s > 0 and self.warmup_s >= 0 and 1 <= self.min_runs <= self.max_runs):
            raise ValueError(f"a pace needs budget_s > 0, warmup_s >= 0, 1 <= min_runs <= max_runs, got {self}")


FEWEST_RUNS = 5
QUICK_MS = 20.0
"""Calls shorter than this run three at a time when taken in turns, after one that is not counted."""


@dataclass(frozen=True)
class Readings:
    """The raw runs of one callable, in the order they were taken.

    wall_ms, cpu_ms: of each run; rounds: the turn each run belongs to; warmup: runs not counted
    load_average: before the first run; usage: what others did from the first run to the last
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    rounds: tuple[int, ...]
    warmup: int
    load_average: float
    usage: Usage

    @property
    def cpu_wall_ratio(self) -> float:
        wall = sum(self.wall_ms)
        return sum(self.cpu_ms) / wall if wall else 0.0

    def round_medians(self) -> list[float]:
        """The median of each turn, in ms."""
        turns: dict[int, list[float]] = {}
        for number, wall in zip(self.rounds, self.wall_ms, strict=True):
            turns.setdefault(number, []).append(wall)
        return [median(turns[number]) for number in sorted(turns)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Readings:
        return cls(
            wall_ms=tuple(float(ms) for ms in data["wall_ms"]),
            cpu_ms=tuple(float(ms) for ms in data["cpu_ms"]),
            rounds=tuple(int(number) for number in data["rounds"]),
            warmup=int(data["warmup"]),
            load_average=float(data["load_average"]),
            usage=Usage(**data["usage"]),
        )


def time_callable(call: Call, pace: Pace | None = None, *, cores: tuple[int, ...] | None = None) -> Readings:
    """Warm `call` up and time it. `cores` are those the process is pinned to, if it is."""
    return interleave([call], pace, cores=cores)[0]


def interleave(
    calls: Sequence[Call], pace: Pace | None = None, *, cores: tuple[int, ...] | None = None
) -> list[Readings]:
    """Time several callables in turns (ABAB…), so that whatever the machine does happens to all of them.

    A quick callable finds its data pushed out of the processor's caches by the one before; so each turn of several
    quick callables starts with one run that is not counted, then three that are.
    """
    pace = pace or Pace()
    if not calls:
        return []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return _turns(calls, pace, cores)
    finally:
        if collecting:
            gc.enable()


def _turns(calls: Sequence[Call], pace: Pace, cores: tuple[int, ...] | None) -> list[Readings]:
    load = load_average()
    warmups, bursts = [], []
    for call in calls:
        runs, typical_ms = _warm_up(call, pace.warmup_s)
        warmups.append(runs)
        bursts.append(3 if len(calls) > 1 and typical_ms < QUICK_MS else 1)
    wall: list[list[float]] = [[] for _ in calls]
    cpu: list[list[float]] = [[] for _ in calls]
    rounds: list[list[int]] = [[] for _ in calls]
    watch = Watch(cores)
    start, turn = time.perf_counter(), 0
    while not _enough((time.perf_counter() - start) / len(calls), min(map(len, wall)), pace):
        for i, call in enumerate(calls):
            if bursts[i] > 1:
                call()
            for _ in range(bursts[i]):
                cpu_0, wall_0 = time.process_time_ns(), time.perf_counter_ns()
                call()
                wall_1, cpu_1 = time.perf_counter_ns(), time.process_time_ns()
                wall[i].append((wall_1 - wall_0) * 1e-6)
                cpu[i].append((cpu_1 - cpu_0) * 1e-6)
                rounds[i].append(turn)
        turn += 1
    usage = watch.usage()
    return [
        Readings(tuple(wall[i]), tuple(cpu[i]), tuple(rounds[i]), warmups[i], load, usage) for i in range(len(calls))
    ]


def _enough(elapsed_s: float, runs: int, pace: Pace) -> bool:
    if runs >= pace.max_runs:
        return True
    if elapsed_s >= pace.budget_s:
        return runs >= pace.min_runs or (elapsed_s >= 3 * pace.budget_s and runs >= FEWEST_RUNS)
    return False


def _warm_up(call: Call, limit_s: float) -> tuple[int, float]:
    """Run until five runs in a row are within 5 % of the five before, or for `limit_s`. -> runs, their last median."""
    times_ms: list[float] = []
    start = time.perf_counter()
    while True:
        wall_0 = time.perf_counter_ns()
        call()
        times_ms.append((time.perf_counter_ns() - wall_0) * 1e-6)
        if len(times_ms) >= 10:
            before, last = median(times_ms[-10:-5]), median(times_ms[-5:])
            if abs(last - before) <= 0.05 * before:
                break
        if time.perf_counter() - start >= limit_s:
            break
    return len(times_ms), median(times_ms[-5:])
