"""Sample the run time of callables: warm-up until stable, runs within a budget, several callables interleaved.

A budget is divided into sessions. Before each session but the first the callables are made anew, so that their data lie
elsewhere in memory: the address makes a network faster or slower by some percent for as long as it stays the same.

Wall time is read from `perf_counter_ns`, CPU time is that of the process with all its threads, and what other processes
did is read from the system before and after. Nothing here knows about networks.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from archdsl.json_fields import JsonFields
from archdsl.telemetry.cpu import Usage, Watch, load_average

Call = Callable[[], object]
Anew = Callable[[int], Call]
BUDGET_S = 2.0
"""Seconds of timed runs of a network, where nobody says how many."""
Warm = Callable[[float], object]
"""Called once all are warm, with the most seconds that the runs will take."""


@dataclass(frozen=True)
class Sampling:
    """How many runs of each callable are sampled.

    budget_s:    stop after this many seconds of runs, once min_runs are there
    min_runs:    fewer than this only when three budgets are spent, and never fewer than FEWEST_RUNS
    max_runs:    stop at this many
    warmup_s:    warm up at most this long; in later sessions as long as REWARM of a session's runs
    sessions:    parts that the budget and the runs are divided into, where callables can be made anew and no run takes
                 longer than the budget
    """

    budget_s: float = BUDGET_S
    min_runs: int = 20
    max_runs: int = 5000
    warmup_s: float = 1.0
    sessions: int = 5

    def __post_init__(self) -> None:
        fine = self.budget_s > 0 and self.warmup_s >= 0 and 1 <= self.min_runs <= self.max_runs and self.sessions >= 1
        if not fine:
            rule = "budget_s > 0, warmup_s >= 0, 1 <= min_runs <= max_runs, sessions >= 1"
            raise ValueError(f"a sampling needs {rule}, got {self}")


FEWEST_RUNS = 5
REWARM = 0.1
"""Of a session's budget, at most: code, threads and clocks are warm, only the new memory is not. One run at least."""
QUICK_MS = 20.0
"""Calls shorter than this run three at a time when several are interleaved, after one that is not counted."""


@dataclass(frozen=True)
class Samples(JsonFields):
    """The raw runs of one callable, in the order in which they were taken.

    wall_ms, cpu_ms: of each run; rounds: the round of the interleaving it belongs to; warmup: runs not counted
    load_average: before the first run; usage: what other processes did from the first run to the last
    sessions: the session each run belongs to; empty where there was one
    numbers: which of all calls each run was, from 0; those that were not counted lie between
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    rounds: tuple[int, ...]
    warmup: int
    load_average: float
    usage: Usage
    sessions: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def cpu_wall_ratio(self) -> float:
        wall = sum(self.wall_ms)
        return sum(self.cpu_ms) / wall if wall else 0.0

    def round_medians(self) -> list[float]:
        """The median of each round, in ms."""
        by_round: dict[int, list[float]] = {}
        for number, wall in zip(self.rounds, self.wall_ms, strict=True):
            by_round.setdefault(number, []).append(wall)
        return [median(by_round[number]) for number in sorted(by_round)]

    def round_sessions(self) -> list[int]:
        """The session of each round."""
        by_round = dict(zip(self.rounds, self.sessions or (0,) * len(self.rounds), strict=True))
        return [by_round[number] for number in sorted(by_round)]

    @property
    def num_sessions(self) -> int:
        return len(set(self.sessions)) or 1


def interleave(
    calls: list[Call],
    sampling: Sampling | None = None,
    *,
    cores: tuple[int, ...] | None = None,
    anew: Anew | None = None,
    warm: Warm = lambda most_s: None,
) -> list[Samples]:
    """Sample several callables interleaved (ABAB…), so that a disturbance of the machine hits all of them alike.

    A quick callable finds its data evicted from the processor's caches by the one before. So each of several quick
    callables begins its part of a round with one run that is not counted, followed by three that are.

    anew: makes callable i again, elsewhere in memory; without it there is one session. What it returns takes the place
          of calls[i], so that no more than one of them is there twice
    """
    sampling = sampling or Sampling()
    if not calls:
        return []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return _sessions(calls, sampling, cores, anew, warm)
    finally:
        if collecting:
            gc.enable()


def _sessions(
    calls: list[Call], sampling: Sampling, cores: tuple[int, ...] | None, anew: Anew | None, warm: Warm
) -> list[Samples]:
    load, watch = load_average(), None
    recorders = [_Recorder() for _ in calls]
    num, session = sampling.sessions if anew else 1, 0
    while session < num:
        if anew and session:
            for i in range(len(calls)):
                calls[i] = anew(i)
        warmup_s = min(sampling.warmup_s, REWARM * sampling.budget_s / num) if session else sampling.warmup_s
        typical_ms = [one.warm_up(call, warmup_s) for call, one in zip(calls, recorders, strict=True)]
        bursts = [3 if len(calls) > 1 and ms < QUICK_MS else 1 for ms in typical_ms]
        if not session:
            if max(typical_ms) > 1000 * sampling.budget_s:
                num = 1  # each further one would take a run to warm up, and two that count
            warm(_most_s(typical_ms, bursts, sampling, num))
        watch = watch or Watch(cores)
        _sample_session(calls, recorders, bursts, sampling, session, num)
        session += 1
    assert watch is not None
    usage = watch.usage()
    return [one.samples(load, usage, several=num > 1) for one in recorders]


def _most_s(typical_ms: Sequence[float], bursts: Sequence[int], sampling: Sampling, sessions: int) -> float:
    """How long the runs take at most while they stay as they are: three budgets, or the fewest runs where those take
    longer; in each session a round that began in time, and from the second on a warm-up."""
    round_s = sum(ms * (burst + (burst > 1)) for ms, burst in zip(typical_ms, bursts, strict=True)) / 1000
    return max(3 * sampling.budget_s * len(typical_ms), FEWEST_RUNS * round_s) + (2 * sessions - 1) * round_s


class _Recorder:
    """The runs of one callable so far."""

    def __init__(self) -> None:
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.rounds: list[int] = []
        self.sessions: list[int] = []
        self.numbers: list[int] = []
        self.warmup = 0
        self.calls = 0

    def warm_up(self, call: Call, limit_s: float) -> float:
        """Run without counting, and return about how many ms one run takes."""
        runs, typical_ms = _warm_up(call, limit_s)
        self.warmup += runs
        self.calls += runs
        return typical_ms

    def skip(self, call: Call) -> None:
        """One run that is not counted."""
        call()
        self.calls += 1

    def run(self, call: Call, number: int, session: int) -> None:
        cpu_0, wall_0 = time.process_time_ns(), time.perf_counter_ns()
        call()
        wall_1, cpu_1 = time.perf_counter_ns(), time.process_time_ns()
        self.wall_ms.append((wall_1 - wall_0) * 1e-6)
        self.cpu_ms.append((cpu_1 - cpu_0) * 1e-6)
        self.rounds.append(number)
        self.sessions.append(session)
        self.numbers.append(self.calls)
        self.calls += 1

    def samples(self, load: float, usage: Usage, *, several: bool) -> Samples:
        return Samples(
            wall_ms=tuple(self.wall_ms),
            cpu_ms=tuple(self.cpu_ms),
            rounds=tuple(self.rounds),
            warmup=self.warmup,
            load_average=load,
            usage=usage,
            sessions=tuple(self.sessions) if several else (),
            numbers=tuple(self.numbers),
        )


def _sample_session(
    calls: Sequence[Call],
    recorders: Sequence[_Recorder],
    bursts: Sequence[int],
    sampling: Sampling,
    session: int,
    sessions: int,
) -> None:
    """One session's part of the runs of all."""
    before = [len(one.wall_ms) for one in recorders]
    number = recorders[0].rounds[-1] + 1 if recorders[0].rounds else 0
    start, runs = time.perf_counter(), 0
    while not _enough((time.perf_counter() - start) / len(calls), runs, sampling, sessions):
        for call, one, burst in zip(calls, recorders, bursts, strict=True):
            if burst > 1:
                one.skip(call)
            for _ in range(burst):
                one.run(call, number, session)
        runs = min(len(one.wall_ms) - num for one, num in zip(recorders, before, strict=True))
        number += 1


def _enough(elapsed_s: float, runs: int, sampling: Sampling, sessions: int) -> bool:
    """Whether a session has its part of the seconds and runs."""
    budget_s = sampling.budget_s / sessions
    if runs >= max(1, sampling.max_runs // sessions):
        return True
    if elapsed_s >= budget_s:
        few = ceil(FEWEST_RUNS / sessions)
        return runs >= ceil(sampling.min_runs / sessions) or (elapsed_s >= 3 * budget_s and runs >= few)
    return False


WINDOW_S, WINDOW_RUNS = 0.15, 5
"""Warm are runs whose median stays: that of so many seconds of runs, at most five of them and at least one."""


def _warm_up(call: Call, limit_s: float) -> tuple[int, float]:
    """Run until the last runs are within 5 % of as many before, or for `limit_s`: (runs, their last median in ms)."""
    times_ms: list[float] = []
    start = time.perf_counter()
    while True:
        wall_0 = time.perf_counter_ns()
        call()
        times_ms.append((time.perf_counter_ns() - wall_0) * 1e-6)
        window = min(WINDOW_RUNS, max(1, int(WINDOW_S * 1e3 / max(times_ms[-1], 1e-6))))
        last = median(times_ms[-window:])
        if len(times_ms) >= 2 * window and abs(last - median(times_ms[-2 * window : -window])) <= 0.05 * last:
            break
        if time.perf_counter() - start >= limit_s:
            break
    return len(times_ms), median(times_ms[-5:])
