"""How far medians of one network differ from one measurement to the next, on this machine: assumed, then learnt.

Within one measurement nothing shows what differs between two: which pages the worker got, what the hypervisor's other
guests do, how warm the machine is. Twenty measurements of a Swin-T, each in a fresh worker with five sessions of 0.5 s,
had medians from 100.6 to 112.7 ms on an idle virtual machine of two cores (a standard deviation of 4 %), while the
intervals from within each were mostly narrower than ± 2 %. So each measurement leaves its median in the timing cache,
and later ones take from there how far they may be off: a scaled inverse chi-squared posterior, whose prior counts as
four repeats.

Measurements are repeats of each other when they are of the same network on the same target and under the same load: a
busy neighbour makes a network slower by an amount that is the same each time, and is recorded in `contended` and
`busy_neighbours`. An interval holds for measurements under its own load. Other networks, precisions and batches on the
same runtime and device teach a little too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log, log2, sqrt

from archdsl.latency.statistics import PRIOR_FREEDOM, Spread
from archdsl.latency.timing import Timing

HELD_SD = 0.01
"""The relative standard deviation that is assumed where something holds the clock."""
FREE_SD = 0.04
"""The same where nothing does: what was seen on the virtual machine above."""
OTHERS_FREEDOM = 6
"""The most that repeats of other networks on the same runtime and device count, whatever their precision and batch: how
far medians differ is not theirs alone to say, small networks being less repeatable than large ones."""
DAYS = 30
"""Older repeats count no more: the machine may be another by now."""


@dataclass(frozen=True)
class Repeat:
    """One measurement, as far as later ones want to know.

    place:     `place_of` its timing
    key:       of the network and target, as in the cache
    median_ms: of its runs
    date:      when it was taken, ISO 8601 in UTC
    """

    place: str
    key: str
    median_ms: float
    date: str

    @classmethod
    def of(cls, key: str, timing: Timing) -> Repeat:
        return cls(place_of(timing), key, timing.median_ms, timing.date)


def place_of(timing: Timing) -> str:
    """What decides, besides the network, how repeatable a timing is: runtime, device, threads, clock and load."""
    if timing.contended:
        load = "contended"
    elif timing.busy_neighbours is None:
        load = "unknown load"
    else:
        load = f"{_about(timing.busy_neighbours)} busy neighbours"
    runtime = f"{timing.runtime} {timing.runtime_version}"
    device = f"{timing.device} {timing.device_name}"
    return " | ".join([runtime, device, f"threads {timing.threads}", timing.clock_state.partition(" at ")[0], load])


def _about(cores: float) -> int:
    """0, 1, 2, then the nearest power of two: on a machine of many cores no two measurements have the same load."""
    whole = round(cores)
    return whole if whole < 3 else 2 ** round(log2(whole))


def clock_is_held(clock_state: str) -> bool:
    """Whether a `Timing.clock_state` says that the clock does not follow the load and the temperature."""
    return clock_state == "performance" or clock_state.startswith("locked")


def spread_of(timing: Timing, key: str, repeats: Iterable[Repeat]) -> Spread:
    """The posterior after `repeats`, all of the timing's place; `key` is that of its network."""
    prior = HELD_SD if clock_is_held(timing.clock_state) else FREE_SD
    networks: dict[str, list[float]] = {}
    for repeat in repeats:
        networks.setdefault(repeat.key, []).append(log(repeat.median_ms))
    own, own_freedom = _squares([networks.pop(key, [])])
    others, others_freedom = _squares(list(networks.values()))
    counted = min(others_freedom, OTHERS_FREEDOM)
    share = counted / others_freedom if others_freedom else 0.0
    freedom = PRIOR_FREEDOM + counted + own_freedom
    return Spread(sqrt((PRIOR_FREEDOM * prior**2 + share * others + own) / freedom), counted + own_freedom)


def _squares(networks: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The squared distances from each network's mean, summed, and their degrees of freedom."""
    total, freedom = 0.0, 0
    for logs in networks:
        if len(logs) > 1:
            mean = sum(logs) / len(logs)
            total += sum((value - mean) ** 2 for value in logs)
            freedom += len(logs) - 1
    return total, freedom


def widened(timing: Timing, spread: Spread) -> Timing:
    """The timing, its interval reaching as far as the runs and the repeats together say (in quadrature)."""
    between = spread.reach() * timing.median_ms
    low = timing.median_ms - sqrt((timing.median_ms - timing.ci_low_ms) ** 2 + between**2)
    high = timing.median_ms + sqrt((timing.ci_high_ms - timing.median_ms) ** 2 + between**2)
    changes = {"ci_low_ms": max(0.0, low), "ci_high_ms": high, "between_runs": spread.sd, "repeats": spread.repeats}
    return timing.model_copy(update=changes)
