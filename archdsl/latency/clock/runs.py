"""Times zero-argument callables: warm-up until stable, repeats within a budget, several callables in turns.

A budget is spent in several sittings. Before each but the first the callables are made anew, so that what they work on
lies elsewhere in memory: where it lies makes a network faster or slower by some percent, for as long as it lies there.

The clock is `perf_counter_ns`; beside it runs the CPU clock of the process (all its threads), and before and after the
system is asked who else was at work. Nothing here knows about networks.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from typing import Any

from archdsl.latency.clock.machine import Usage, Watch, load_average

METHOD = 2
"""Goes into the cache key: raise it when a change here makes old timings incomparable."""

Call = Callable[[], object]
Anew = Callable[[int], Call]
Warm = Callable[[float], object]
"""Told, once all are warm, how many seconds the runs will take at most."""


@dataclass(frozen=True)
class Pace:
    """How long to time, for each callable.

    budget_s:    stop after this many seconds of runs, once min_runs are there
    min_runs:    fewer than this only when three budgets are spent, and never fewer than FEWEST_RUNS
    max_runs:    stop at this many
    warmup_s:    warm up at most this long; in later sittings as long as REWARM of a sitting's runs
    sittings:    parts that the budget and the runs are divided into, where callables can be made anew and no run takes
                 longer than the budget
    """

    budget_s: float = 2.0
    min_runs: int = 20
    max_runs: int = 5000
    warmup_s: float = 1.0
    sittings: int = 5

    def __post_init__(self) -> None:
        fine = self.budget_s > 0 and self.warmup_s >= 0 and 1 <= self.min_runs <= self.max_runs and self.sittings >= 1
        if not fine:
            rule = "budget_s > 0, warmup_s >= 0, 1 <= min_runs <= max_runs, sittings >= 1"
            raise ValueError(f"a pace needs {rule}, got {self}")


FEWEST_RUNS = 5
REWARM = 0.1
"""Of a sitting's budget, at most: code, threads and clocks are warm, only the new memory is not. One run at least."""
QUICK_MS = 20.0
"""Calls shorter than this run three at a time when taken in turns, after one that is not counted."""


@dataclass(frozen=True)
class Readings:
    """The raw runs of one callable, in the order they were taken.

    wall_ms, cpu_ms: of each run; rounds: the turn each run belongs to; warmup: runs not counted
    load_average: before the first run; usage: what others did from the first run to the last
    sittings: the sitting each run belongs to; empty where there was one
    numbers: which of all calls each run was, from 0; those that were not counted lie between
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    rounds: tuple[int, ...]
    warmup: int
    load_average: float
    usage: Usage
    sittings: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()

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

    def round_sittings(self) -> list[int]:
        """The sitting of each turn."""
        turns = dict(zip(self.rounds, self.sittings or (0,) * len(self.rounds), strict=True))
        return [turns[number] for number in sorted(turns)]

    @property
    def num_sittings(self) -> int:
        return len(set(self.sittings)) or 1

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
            sittings=tuple(int(number) for number in data["sittings"]),
            numbers=tuple(int(number) for number in data["numbers"]),
        )


def time_callable(call: Call, pace: Pace | None = None, *, cores: tuple[int, ...] | None = None) -> Readings:
    """Warm `call` up and time it. `cores` are those the process is pinned to, if it is."""
    return interleave([call], pace, cores=cores)[0]


def interleave(
    calls: list[Call],
    pace: Pace | None = None,
    *,
    cores: tuple[int, ...] | None = None,
    anew: Anew | None = None,
    warm: Warm = lambda most_s: None,
) -> list[Readings]:
    """Time several callables in turns (ABAB…), so that whatever the machine does happens to all of them.

    A quick callable finds its data pushed out of the processor's caches by the one before; so each turn of several
    quick callables starts with one run that is not counted, then three that are.

    anew: makes callable i again, elsewhere in memory; without it there is one sitting. What it returns takes the place
          of calls[i], so that no more than one of them is there twice
    """
    pace = pace or Pace()
    if not calls:
        return []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return _sittings(calls, pace, cores, anew, warm)
    finally:
        if collecting:
            gc.enable()


def _sittings(
    calls: list[Call], pace: Pace, cores: tuple[int, ...] | None, anew: Anew | None, warm: Warm
) -> list[Readings]:
    load, watch = load_average(), None
    taken = [_Taken() for _ in calls]
    num, sitting = pace.sittings if anew else 1, 0
    while sitting < num:
        if anew and sitting:
            for i in range(len(calls)):
                calls[i] = anew(i)
        warmup_s = min(pace.warmup_s, REWARM * pace.budget_s / num) if sitting else pace.warmup_s
        typical_ms = [one.warm_up(call, warmup_s) for call, one in zip(calls, taken, strict=True)]
        bursts = [3 if len(calls) > 1 and ms < QUICK_MS else 1 for ms in typical_ms]
        if not sitting:
            if max(typical_ms) > 1000 * pace.budget_s:
                num = 1  # each further one would take a run to warm up, and two that count
            warm(_most_s(typical_ms, bursts, pace, num))
        watch = watch or Watch(cores)
        _take_turns(calls, taken, bursts, pace, sitting, num)
        sitting += 1
    assert watch is not None
    usage = watch.usage()
    return [one.readings(load, usage, several=num > 1) for one in taken]


def _most_s(typical_ms: Sequence[float], bursts: Sequence[int], pace: Pace, sittings: int) -> float:
    """How long the runs take at most while they stay as they are: three budgets, or the fewest runs where those take
    longer; in each sitting a turn that began in time, and from the second on a warm-up."""
    turn_s = sum(ms * (burst + (burst > 1)) for ms, burst in zip(typical_ms, bursts, strict=True)) / 1000
    return max(3 * pace.budget_s * len(typical_ms), FEWEST_RUNS * turn_s) + (2 * sittings - 1) * turn_s


class _Taken:
    """The runs of one callable so far."""

    def __init__(self) -> None:
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.rounds: list[int] = []
        self.sittings: list[int] = []
        self.numbers: list[int] = []
        self.warmup = 0
        self.calls = 0

    def warm_up(self, call: Call, limit_s: float) -> float:
        """Run without counting. -> the ms that one run takes, about"""
        runs, typical_ms = _warm_up(call, limit_s)
        self.warmup += runs
        self.calls += runs
        return typical_ms

    def skip(self, call: Call) -> None:
        """One run that is not counted."""
        call()
        self.calls += 1

    def run(self, call: Call, turn: int, sitting: int) -> None:
        cpu_0, wall_0 = time.process_time_ns(), time.perf_counter_ns()
        call()
        wall_1, cpu_1 = time.perf_counter_ns(), time.process_time_ns()
        self.wall_ms.append((wall_1 - wall_0) * 1e-6)
        self.cpu_ms.append((cpu_1 - cpu_0) * 1e-6)
        self.rounds.append(turn)
        self.sittings.append(sitting)
        self.numbers.append(self.calls)
        self.calls += 1

    def readings(self, load: float, usage: Usage, *, several: bool) -> Readings:
        return Readings(
            wall_ms=tuple(self.wall_ms),
            cpu_ms=tuple(self.cpu_ms),
            rounds=tuple(self.rounds),
            warmup=self.warmup,
            load_average=load,
            usage=usage,
            sittings=tuple(self.sittings) if several else (),
            numbers=tuple(self.numbers),
        )


def _take_turns(
    calls: Sequence[Call], taken: Sequence[_Taken], bursts: Sequence[int], pace: Pace, sitting: int, sittings: int
) -> None:
    """One sitting's part of the runs of all."""
    before = [len(one.wall_ms) for one in taken]
    turn = taken[0].rounds[-1] + 1 if taken[0].rounds else 0
    start, runs = time.perf_counter(), 0
    while not _enough((time.perf_counter() - start) / len(calls), runs, pace, sittings):
        for call, one, burst in zip(calls, taken, bursts, strict=True):
            if burst > 1:
                one.skip(call)
            for _ in range(burst):
                one.run(call, turn, sitting)
        runs = min(len(one.wall_ms) - num for one, num in zip(taken, before, strict=True))
        turn += 1


def _enough(elapsed_s: float, runs: int, pace: Pace, sittings: int) -> bool:
    """Whether a sitting has its part of the seconds and runs."""
    budget_s = pace.budget_s / sittings
    if runs >= max(1, pace.max_runs // sittings):
        return True
    if elapsed_s >= budget_s:
        few = ceil(FEWEST_RUNS / sittings)
        return runs >= ceil(pace.min_runs / sittings) or (elapsed_s >= 3 * budget_s and runs >= few)
    return False


WINDOW_S, WINDOW_RUNS = 0.15, 5
"""Warm are runs whose median stays: that of so many seconds of runs, at most five of them and at least one."""


def _warm_up(call: Call, limit_s: float) -> tuple[int, float]:
    """Run until the last runs are within 5 % of as many before, or for `limit_s`. -> runs, their last median in ms."""
    times_ms: list[float] = []
    start = time.perf_counter()
    while True:
        wall_0 = time.perf_counter_ns()
        call()
        times_ms.append((time.perf_counter_ns() - wall_0) * 1e-6)
        window = min(WINDOW_RUNS, max(1, int(WINDOW_S * 1e3 / times_ms[-1])))
        last = median(times_ms[-window:])
        if len(times_ms) >= 2 * window and abs(last - median(times_ms[-2 * window : -window])) <= 0.05 * last:
            break
        if time.perf_counter() - start >= limit_s:
            break
    return len(times_ms), median(times_ms[-5:])
