"""The energy of a network's runs, by the device's own counter. Experimental: tested with stand-ins for the counters.

NVIDIA GPUs count the millijoules of the whole board (NVML, since Volta); of older ones the power is integrated over
time. Processors of Intel and AMD count those of a package (RAPL): all its cores and caches, idle ones included, without
the memory; Linux mostly lets only root read them. So the result is what the device used meanwhile, whichever process
used it: networks can be compared on one device, not across kinds of devices.

A counter moves every millisecond (RAPL) or every 20 to 100 (NVML), far more rarely than a network runs. So each network
has a window of its own after the timed runs, in which it runs without pause, alone, from one move of the counter to a
later one. The timed runs are not affected.

Source: NVML, `nvmlDeviceGetTotalEnergyConsumption`; https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any, Protocol

from archdsl.json_fields import JsonFields
from archdsl.statistics import student_t
from archdsl.telemetry.gpu import handle_of, nvml_session

WINDOW_S = 1.0
"""Seconds for which a network runs; a slow one for twice as long, or for as long as `FEWEST_PARTS` runs take."""
PARTS, FEWEST_PARTS = 5, 2
"""The window's parts, whose differences make the ±."""
POLL_S = 0.01
"""How often the counter is read, at most: reading it takes time, in which a GPU has nothing to do."""
STANDS_STILL_S = 1.0
"""A counter that has not moved for so long does not count."""

Call = Callable[[], object]
Clock = Callable[[], float]

_POWERCAP = Path("/sys/class/powercap")
_CPUS = Path("/sys/devices/system/cpu")


class EnergyUnavailable(Exception):
    """The energy cannot be read; the text says why."""


@dataclass(frozen=True)
class Energy(JsonFields):
    """The energy of one run.

    mj_per_run, plus_minus_mj: millijoules, and half their 95 % interval, from the differences within the window; None
        where it cannot be read
    note: by which counter, or why there is none
    """

    mj_per_run: float | None
    plus_minus_mj: float | None
    note: str


class Meter(Protocol):
    """how: the counter, in words"""

    how: str

    def read_mj(self) -> float:
        """Millijoules used since the meter was made. Raises: EnergyUnavailable"""
        ...


@contextmanager
def energy_meter(device: str, cores: tuple[int, ...] | None = None) -> Iterator[Meter]:
    """The counter of the device, open for as long as it is needed.

    Args:
        device: `cpu` or `cuda`, where it is the GPU that CUDA would use first (see `gpu.read_gpu`)
        cores: the cores that do the work; packages without any of them are not counted. None for all
    Raises: EnergyUnavailable
    """
    if device == "cpu":
        yield Rapl(cores)
        return
    with ExitStack() as stack:
        try:
            nvml = stack.enter_context(nvml_session())
        except ImportError:
            missing = "NVIDIA's management library is not installed: pip install 'archdsl[gpu]'"
            raise EnergyUnavailable(missing) from None
        except Exception as error:  # no driver, or one that does not fit the library
            raise EnergyUnavailable(f"NVIDIA's management library does not start: {error}") from None
        try:
            gpu = handle_of(nvml)
        except Exception as error:
            raise EnergyUnavailable(f"there is no GPU to ask: {error}") from None
        try:
            meter: Meter = _GpuCounter(nvml, gpu)
        except EnergyUnavailable:
            meter = _GpuPower(nvml, gpu)
        yield meter


def why_no_energy(device: str) -> str | None:
    """Why the energy of this machine's device cannot be read; None where it can. It never raises."""
    try:
        with energy_meter(device) as meter:
            meter.read_mj()
    except EnergyUnavailable as error:
        return str(error)
    return None


def measure_energy(call: Call, meter: Meter, now: Clock = time.perf_counter) -> Energy:
    """The energy of one call, in mJ, from a window of `WINDOW_S`. Raises: EnergyUnavailable; what `call` raises"""
    runs = 0

    def mark(least_s: float) -> tuple[int, float]:
        """Run for `least_s`, then until the counter moves; the runs so far, and the counter in mJ."""
        nonlocal runs
        begun = moved = at = now()
        before = meter.read_mj()
        while True:
            looked = at
            while True:  # one run at least
                call()
                runs += 1
                if now() - looked >= POLL_S:
                    break
            mj, at = meter.read_mj(), now()
            if mj != before:
                if at - begun >= least_s:
                    return runs, mj
                before, moved = mj, at
            elif at - moved > STANDS_STILL_S:
                raise EnergyUnavailable(f"the counter does not move ({meter.how})")

    marks = [mark(0.0)]
    end = now() + 2 * WINDOW_S
    while len(marks) <= PARTS and (len(marks) <= FEWEST_PARTS or now() < end):
        marks.append(mark(WINDOW_S / PARTS))
    parts = [(mj - mj_0) / (num - num_0) for (num_0, mj_0), (num, mj) in pairwise(marks)]
    mj_per_run = (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])
    reach = student_t(0.95, len(parts) - 1) * stdev(parts) / sqrt(len(parts))
    return Energy(mj_per_run, reach, meter.how)


def most_s(run_s: float) -> float:
    """How long `measure_energy` takes at most, for a run of so many seconds, where the counter moves."""
    return 2 * WINDOW_S + (FEWEST_PARTS + 2) * run_s


# --- processors -------------------------------------------------------------------------------------------------------


class Rapl:
    """The packages that hold the cores, added up. Their counters begin anew at a number of their own.

    Raises: EnergyUnavailable when the system has none of them, or does not let this process read them
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
        raise EnergyUnavailable(f"the system has no energy counters of its processor (RAPL, {_POWERCAP}/intel-rapl:0)")
    try:
        ours = {_number(_CPUS / f"cpu{core}" / "topology" / "physical_package_id") for core in cores or ()}
    except EnergyUnavailable:
        return found
    of_cores = {name: zone for name, zone in found.items() if name.split("-")[1] in map(str, ours)}
    return of_cores or found


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except PermissionError:
        raise EnergyUnavailable(
            f"only root may read {path}; an administrator can allow it until the next boot"
        ) from None
    except (OSError, ValueError) as error:
        raise EnergyUnavailable(f"{path} cannot be read: {error}") from None


# --- GPUs -------------------------------------------------------------------------------------------------------------


def _read(nvml: Any, name: str, gpu: Any) -> int:
    """What a function of the library returns. Raises: EnergyUnavailable"""
    try:
        return int(getattr(nvml, name)(gpu))
    except Exception as error:  # this GPU does not support it, or the library is too old
        raise EnergyUnavailable(f"the GPU does not tell its energy ({name}: {error})") from None


class _GpuCounter:
    """Millijoules since the driver was loaded, less those at the beginning."""

    how = "NVML's energy counter of the GPU"

    def __init__(self, nvml: Any, gpu: Any):
        self._nvml, self._gpu = nvml, gpu
        self._first = self._counter()

    def read_mj(self) -> float:
        return float(self._counter() - self._first)

    def _counter(self) -> int:
        return _read(self._nvml, "nvmlDeviceGetTotalEnergyConsumption", self._gpu)


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
        return _read(self._nvml, "nvmlDeviceGetPowerUsage", self._gpu)
