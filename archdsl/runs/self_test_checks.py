"""Whether latencies taken on this machine mean what they say: a table of checks, each a small function.

A check sees the machine through `Instruments` alone, so a test can hand it instruments that lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from archdsl.errors import MeasureError
from archdsl.events import Listener, Step, ignore
from archdsl.json_fields import JsonFields
from archdsl.latency.timing import Timing

REPEATS = 3
BATCH = 4
LEAST_OF_MACS = 0.3
MOST_OF_MACS = 3.0
"""A network with k times the MACs of a like one takes 0.3 k to 3 k as long: more is not explained by caches."""
CLOCKS_AGREE = (0.5, 2.0)
"""What our clock says, as a share of what another clock says: room for a busy machine, none for wrong units."""
PREDICTED = (0.6, 1.6)
"""A prediction as a share of the measurement: far more than its error, on a shared machine."""
LEAST_BATCH, MOST_BATCH = 0.8, 2.0
"""A batch takes at least 0.8 times as long as one image, and at most twice as long as its images one by one."""


@dataclass(frozen=True)
class TimedRun:
    """A timing and the seconds that a clock outside the worker saw pass meanwhile: loading and warm-up included."""

    timing: Timing
    wall_s: float


class Instruments(Protocol):
    """What the checks ask of the machine. `small` and `big` are two networks of one kind."""

    def macs(self, network: str) -> int:
        """Multiply-adds of one image."""
        ...

    def num_cores(self) -> int:
        """Cores that a worker may use."""
        ...

    def take(self, network: str, *, batch: int = 1, budget_s: float = 1.0) -> TimedRun:
        """A fresh timing, not from a cache; budget_s: seconds of timed runs."""
        ...

    def keeps(self, network: str, most_ms: float) -> bool:
        """Whether a search whose latency must be at most `most_ms` keeps the network: the search's own code says."""
        ...

    def predicted_and_measured(self) -> tuple[float, float] | None:
        """What the predictor says about a third network and what a measurement shows, in ms; None where it predicts
        nothing."""
        ...

    def refuses_corrupted(self, network: str) -> bool:
        """Whether a network with one wrong weight gets no time."""
        ...


@dataclass(frozen=True)
class Check(JsonFields):
    """What one check found.

    passed: None where there was nothing to check; measured: the numbers, in words
    otherwise: what it means if it has failed
    """

    name: str
    passed: bool | None
    measured: str
    otherwise: str


class Bench:
    """The instruments, and what they have shown so far, so that no check takes again what another took."""

    def __init__(self, instruments: Instruments):
        self.instruments = instruments
        self._known: dict[tuple[str, int, float, int], TimedRun] = {}

    def taken(self, network: str, *, batch: int = 1, budget_s: float = 1.0, number: int = 0) -> TimedRun:
        """The timing of that number (0, 1, …) under these conditions."""
        key = (network, batch, budget_s, number)
        if key not in self._known:
            self._known[key] = self.instruments.take(network, batch=batch, budget_s=budget_s)
        return self._known[key]

    def median_ms(self, network: str, *, batch: int = 1) -> float:
        """The median of the first timing of a network, in ms."""
        return self.taken(network, batch=batch).timing.median_ms


def bigger_is_slower(bench: Bench) -> tuple[bool, str]:
    """a network of many times the work takes about as many times as long"""
    work = bench.instruments.macs("big") / bench.instruments.macs("small")
    small, big = bench.median_ms("small"), bench.median_ms("big")
    ratio = big / small if small else 0.0
    text = f"{work:.1f} times the MACs took {ratio:.1f} times as long ({small:.2f} ms, {big:.2f} ms)"
    return LEAST_OF_MACS * work <= ratio <= MOST_OF_MACS * work and ratio > 1, text


def constraint_is_live(bench: Bench) -> tuple[bool, str]:
    """a limit between two latencies keeps the small network and rejects the big one"""
    limit = (bench.median_ms("small") * bench.median_ms("big")) ** 0.5
    small, big = (bench.instruments.keeps(network, limit) for network in ("small", "big"))
    words = {True: "kept", False: "rejected"}
    return small and not big, f"at most {limit:.2f} ms: the small one was {words[small]}, the big one {words[big]}"


def clocks_agree(bench: Bench) -> tuple[bool, str]:
    """many runs take as long on another clock as our clock says"""
    short = bench.taken("small", budget_s=0.2)
    long = bench.taken("small", budget_s=3.0)

    def ours(taken: TimedRun) -> float:
        return taken.timing.median_ms * (taken.timing.runs + taken.timing.warmup) / 1000

    said, seen = ours(long) - ours(short), long.wall_s - short.wall_s
    share = said / seen if seen > 0 else 0.0
    more = long.timing.runs + long.timing.warmup - short.timing.runs - short.timing.warmup
    text = f"{more} more runs of {long.timing.median_ms:.2f} ms are {said:.2f} s; the parent's clock saw {seen:.2f} s"
    return CLOCKS_AGREE[0] <= share <= CLOCKS_AGREE[1], text


def batches_scale(bench: Bench) -> tuple[bool, str]:
    """a batch takes no less than one image and no more than its images would one by one"""
    one, many = bench.median_ms("small"), bench.median_ms("small", batch=BATCH)
    text = f"one image {one:.2f} ms, {BATCH} images {many:.2f} ms"
    return LEAST_BATCH * one <= many <= MOST_BATCH * BATCH * one, text


def repeats_agree(bench: Bench) -> tuple[bool, str]:
    """measurements of one network agree within the intervals that they print"""
    timings = [bench.taken("small", number=number).timing for number in range(REPEATS)]
    apart = any(a.ci_low_ms > b.ci_high_ms or b.ci_low_ms > a.ci_high_ms for a, b in combinations(timings, 2))
    return not apart, ", ".join(map(str, timings))


def gate_is_live(bench: Bench) -> tuple[bool, str]:
    """a network with one wrong weight gets no time"""
    refused = bench.instruments.refuses_corrupted("small")
    return refused, "it was refused" if refused else "it was timed as if nothing were wrong"


def conditions_are_recorded(bench: Bench) -> tuple[bool, str]:
    """the timing says the worker's threads and cores, which are fixed, and whether it was contended"""
    timing = bench.taken("small").timing
    threads, policy = (timing.environment.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"))
    cores = "not pinned" if timing.cores is None else f"cores {', '.join(map(str, timing.cores))}"
    now = f"contended now: {timing.contention}" if timing.contended else "not contended now"
    text = f"OMP_NUM_THREADS={threads}, OMP_WAIT_POLICY={policy}, {cores}, clock {timing.clock_state}; {now}"
    pinned = timing.cores is None or len(timing.cores) == min(timing.threads, bench.instruments.num_cores())
    return threads == str(timing.threads) and str(policy).lower() == "passive" and pinned, text


def prediction_agrees(bench: Bench) -> tuple[bool | None, str]:
    """a network that is put together from measured segments takes about as long as is predicted"""
    found = bench.instruments.predicted_and_measured()
    if found is None:
        return None, "nothing is predicted on this runtime: it does not take ONNX files"
    predicted, measured = found
    text = f"predicted {predicted:.2f} ms, measured {measured:.2f} ms"
    return PREDICTED[0] * measured <= predicted <= PREDICTED[1] * measured, text


Look = Callable[[Bench], tuple[bool | None, str]]
"""A check: (passed, what was measured). Its docstring is what it looks at."""

CHECKS: dict[str, tuple[Look, str]] = {
    "bigger is slower": (
        bigger_is_slower,
        "the times are not of the networks: something else is timed, or the same file each time",
    ),
    "constraint": (
        constraint_is_live,
        "a search does not hold its latency limit: what it returns may be too slow",
    ),
    "clock": (
        clocks_agree,
        "the times are in a wrong unit, or a run is called done before the device has finished it",
    ),
    "batch": (
        batches_scale,
        "latencies of batches are not those of whole batches: throughputs cannot be believed",
    ),
    "repeats": (
        repeats_agree,
        "this machine is not repeatable: intervals are too narrow here. Close other programs, fix the clock",
    ),
    "numeric gate": (
        gate_is_live,
        "networks that compute something else count as fast: no latency here can be believed",
    ),
    "prediction": (
        prediction_agrees,
        "latencies that `archdsl predict` prints cannot be believed here",
    ),
    "conditions": (
        conditions_are_recorded,
        "threads are not what timings say they are: times of different runs cannot be compared",
    ),
}
"""By name: the check, and what its failure would mean."""


def self_test(instruments: Instruments, on_event: Listener = ignore) -> list[Check]:
    """Every check of the table, in its order. on_event: receives a `Step` with the name of each

    A check that cannot be made has failed. Errors: MeasureError when that is the first one already
    """
    bench = Bench(instruments)
    found: list[Check] = []
    for name, (look, otherwise) in CHECKS.items():
        on_event(Step(f"checking: {name}"))
        passed: bool | None
        try:
            passed, measured = look(bench)
        except MeasureError as error:
            if not found:
                raise
            passed, measured = False, f"this could not be found out: {error.problems[0].message}"
        found.append(Check(name, passed, measured, otherwise))
    return found
