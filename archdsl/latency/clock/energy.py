"""How much energy a network takes, by the device's own counter.

NVIDIA GPUs count the millijoules of the whole board (NVML, since Volta); where they tell only their power, it is added
up over time. Processors of Intel and AMD count those of a package (RAPL), all its cores, caches and what idles in it
included, memory not; Linux lets mostly root alone read them. So what is taken is what the device used meanwhile,
whoever used it: networks can be compared on one device, not across kinds of devices.

A counter moves every millisecond (RAPL) or every 20 to 100 (NVML), far more rarely than a network runs. So each network
has a window of its own after the timed runs, in which it runs without pause, alone, from one move of the counter to a
later one. The times know nothing of it.

State: written against nvidia-ml-py 13 and Linux's powercap interface, and exercised with stand-ins for both. Not yet
run by us on a device that tells its energy.

Source: NVML, `nvmlDeviceGetTotalEnergyConsumption`; https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any, Protocol

from archdsl.latency.clock.gpu_state import handle_of
from archdsl.latency.clock.intervals import student_t

WINDOW_S = 1.0
"""Seconds for which a network runs; a slow one for twice as long, or for as long as `FEWEST_PARTS` runs take."""
PARTS, FEWEST_PARTS = 5, 2
"""The window's parts, whose differences make the ±."""
POLL_S = 0.01
"""How often the counter is read, at most: reading it takes time, in which a GPU has nothing to do."""
STANDS_STILL_S = 1.0
"""A counter that has not moved for so long is none."""

Call = Callable[[], object]
Clock = Callable[[], float]

_POWERCAP = Path("/sys/class/powercap")
_CPUS = Path("/sys/devices/system/cpu")


class NotTold(Exception):
    """Nobody tells how much energy is used; the text says why."""


@dataclass(frozen=True)
class Energy:
    """What one run takes.

    mj_per_run, plus_minus_mj: millijoules, and half their 95 % interval, from the differences within the window; None
        where nobody tells
    note: by which counter, or why there is none
    """

    mj_per_run: float | None
    plus_minus_mj: float | None
    note: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Energy:
        """Errors: TypeError, ValueError for anything that is not an energy"""
        mj, reach = data["mj_per_run"], data["plus_minus_mj"]
        return cls(None if mj is None else float(mj), None if reach is None else float(reach), str(data["note"]))


class Meter(Protocol):
    """how: the counter, in words"""

    how: str

    def read_mj(self) -> float:
        """Millijoules used since the meter was made. Errors: NotTold"""
        ...


@contextmanager
def energy_meter(device: str, cores: tuple[int, ...] | None = None) -> Iterator[Meter]:
    """The counter of the device, open for as long as it is needed.

    device: `cpu` or `cuda`, where it is the GPU that CUDA would use first (see `gpu_state.read_gpu`)
    cores: the cores that do the work; packages without any of them are not counted. None for all
    Errors: NotTold
    """
    if device == "cpu":
        yield Rapl(cores)
        return
    with _nvml() as nvml:
        yield _gpu_meter(nvml)


def why_no_energy(device: str) -> str | None:
    """Why nobody tells the energy of this machine's device; None where it is told. Never raises."""
    try:
        with energy_meter(device) as meter:
            meter.read_mj()
    except NotTold as error:
        return str(error)
    return None


def measure_energy(call: Call, meter: Meter, now: Clock = time.perf_counter) -> Energy:
    """Run `call` for `WINDOW_S` and read the meter beside it. Errors: NotTold; what `call` raises"""
    window = _Window(call, meter, now)
    marks = [window.mark(0.0)]
    end = now() + 2 * WINDOW_S
    while len(marks) <= PARTS and (len(marks) <= FEWEST_PARTS or now() < end):
        marks.append(window.mark(WINDOW_S / PARTS))
    parts = [(after.mj - before.mj) / (after.runs - before.runs) for before, after in pairwise(marks)]
    mj = (marks[-1].mj - marks[0].mj) / (marks[-1].runs - marks[0].runs)
    reach = student_t(0.95, len(parts) - 1) * stdev(parts) / sqrt(len(parts))
    return Energy(mj, reach, meter.how)


def most_s(run_s: float) -> float:
    """How long `measure_energy` takes at most, for a run of so many seconds, where the counter moves."""
    return 2 * WINDOW_S + (FEWEST_PARTS + 2) * run_s


@dataclass(frozen=True)
class _Mark:
    """A moment at which the counter had just moved."""

    runs: int
    mj: float


class _Window:
    """Runs without pause, interrupted by looks at the counter."""

    def __init__(self, call: Call, meter: Meter, now: Clock):
        self.call, self.meter, self.now = call, meter, now
        self.runs = 0

    def mark(self, least_s: float) -> _Mark:
        """Run for `least_s`, then until the counter moves. Errors: NotTold when it does not"""
        begun = moved = self.now()
        before = self.meter.read_mj()
        while True:
            self._run_for(POLL_S)
            mj, at = self.meter.read_mj(), self.now()
            if mj != before:
                if at - begun >= least_s:
                    return _Mark(self.runs, mj)
                before, moved = mj, at
            elif at - moved > STANDS_STILL_S:
                raise NotTold(f"the counter does not move ({self.meter.how})")

    def _run_for(self, seconds: float) -> None:
        """One run at least."""
        begun = self.now()
        while True:
            self.call()
            self.runs += 1
            if self.now() - begun >= seconds:
                return


# --- processors -------------------------------------------------------------------------------------------------------


class Rapl:
    """The packages that hold the cores, added up. Their counters begin anew at a number of their own.

    Errors: NotTold when the system has none of them, or does not let this process read them
    """

    def __init__(self, cores: tuple[int, ...] | None = None):
        self._zones = _packages(cores)
        self.how = f"RAPL of {', '.join(self._zones)}"
        self._ranges = {name: _number(zone / "max_energy_range_uj") for name, zone in self._zones.items()}
        self._last = self._read()
        self._uj = 0

    def read_mj(self) -> float:
        read = self._read()
        for name, value in read.items():
            step = value - self._last[name]
            self._uj += step if step >= 0 else step + self._ranges[name]
        self._last = read
        return self._uj / 1000

    def _read(self) -> dict[str, int]:
        return {name: _number(zone / "energy_uj") for name, zone in self._zones.items()}


def _packages(cores: tuple[int, ...] | None) -> dict[str, Path]:
    """`package-0` -> its folder, for the packages of the cores; all where the system does not say whose they are."""
    found: dict[str, Path] = {}
    try:
        for zone in sorted(_POWERCAP.glob("intel-rapl:*")):
            name = (zone / "name").read_text(encoding="ascii").strip()
            if name.startswith("package-"):  # neither a part of one, nor the whole system
                found[name] = zone
    except (OSError, ValueError):
        found = {}
    if not found:
        raise NotTold(f"the system has no energy counters of its processor (RAPL, {_POWERCAP}/intel-rapl:0)")
    try:
        ours = {_number(_CPUS / f"cpu{core}" / "topology" / "physical_package_id") for core in cores or ()}
    except NotTold:
        return found
    of_cores = {name: zone for name, zone in found.items() if name.split("-")[1] in map(str, ours)}
    return of_cores or found


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except PermissionError:
        raise NotTold(f"only root may read {path}; an administrator can allow it, until the next boot") from None
    except (OSError, ValueError) as error:
        raise NotTold(f"{path} cannot be read: {error}") from None


# --- GPUs -------------------------------------------------------------------------------------------------------------


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVIDIA's management library, in use. Errors: NotTold"""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        raise NotTold("NVIDIA's management library is not installed: pip install 'archdsl[gpu]'") from None
    try:
        nvml.nvmlInit()
    except Exception as error:  # no driver, or one that does not fit the library
        raise NotTold(f"NVIDIA's management library does not start: {error}") from None
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _gpu_meter(nvml: Any) -> Meter:
    """The GPU's counter, or its power where it has none. Errors: NotTold"""
    try:
        gpu = handle_of(nvml)
    except Exception as error:
        raise NotTold(f"there is no GPU to ask: {error}") from None
    try:
        return _GpuCounter(nvml, gpu)
    except NotTold:
        return _GpuPower(nvml, gpu)


def _told(nvml: Any, name: str, gpu: Any) -> int:
    """What a function of the library says. Errors: NotTold"""
    try:
        return int(getattr(nvml, name)(gpu))
    except Exception as error:  # this GPU does not tell, or the library is too old to ask
        raise NotTold(f"the GPU does not tell its energy ({name}: {error})") from None


class _GpuCounter:
    """Millijoules since the driver was loaded, less those at the beginning."""

    how = "NVML's energy counter of the GPU"

    def __init__(self, nvml: Any, gpu: Any):
        self._nvml, self._gpu = nvml, gpu
        self._first = self._counter()

    def read_mj(self) -> float:
        return float(self._counter() - self._first)

    def _counter(self) -> int:
        return _told(self._nvml, "nvmlDeviceGetTotalEnergyConsumption", self._gpu)


class _GpuPower:
    """Power added up over time: between two looks it is taken to be the mean of both."""

    how = "the GPU's power times the time (NVML; this GPU has no energy counter)"

    def __init__(self, nvml: Any, gpu: Any, now: Clock = time.perf_counter):
        self._nvml, self._gpu, self._now = nvml, gpu, now
        self._last_mw, self._last_s = self._power_mw(), now()
        self._mj = 0.0

    def read_mj(self) -> float:
        mw, at = self._power_mw(), self._now()
        self._mj += (mw + self._last_mw) / 2 * (at - self._last_s)
        self._last_mw, self._last_s = mw, at
        return self._mj

    def _power_mw(self) -> int:
        return _told(self._nvml, "nvmlDeviceGetPowerUsage", self._gpu)
