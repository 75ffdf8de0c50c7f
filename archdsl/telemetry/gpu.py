"""The state of a GPU before and after runs: clocks, what limits them, temperature, power, other processes.

It is read through NVIDIA's management library (the module `pynvml` of the package nvidia-ml-py). Where that is missing,
nothing is known; a single fact may be missing too, on an old card or in a virtual machine.

State: written against nvidia-ml-py 13 and its documentation, and exercised with a stand-in for it. Not yet run on a GPU
by us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from archdsl.json_fields import JsonFields

REASONS = {
    0x001: "idle",
    0x002: "application clocks set",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "thermal slowdown by the driver",
    0x040: "thermal slowdown by the hardware",
    0x080: "power brake",
    0x100: "display clock",
    0x200: "board limit",
    0x400: "reliability limit",
}
"""By bit of NVML's clocks event reasons (before driver 535: throttle reasons), what holds the clock."""
HELD = 0x002
SLOWED = 0x004 | 0x008 | 0x010 | 0x020 | 0x040 | 0x080 | 0x200 | 0x400
"""Those that make runs slower than the GPU is; the others are as it should be, or say that nothing runs."""

DeviceState = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class GpuState:
    """The state at one moment. None where the driver does not report it.

    sm_mhz, memory_mhz: clocks now; max_sm_mhz, max_memory_mhz: the highest there are
    reasons:            bits of `REASONS`
    others:             processes other than this one that compute on it
    """

    driver: str | None = None
    sm_mhz: int | None = None
    max_sm_mhz: int | None = None
    memory_mhz: int | None = None
    max_memory_mhz: int | None = None
    reasons: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    persistence: bool | None = None
    others: int | None = None

    @property
    def reason_names(self) -> str:
        """What holds the clock, in words, separated by commas."""
        return ", ".join(name for bit, name in REASONS.items() if (self.reasons or 0) & bit)


CHANGING = ("sm_mhz", "memory_mhz", "temperature_c", "power_w", "others")
"""Facts of a `GpuState` that are reported from before the runs and from after them."""


@dataclass(frozen=True)
class GpuStates(JsonFields):
    """The states before and after the runs."""

    before: GpuState
    after: GpuState

    @property
    def clock_state(self) -> str:
        """`locked at 1410 MHz`, or `unlocked`, with the clock after the runs.

        NVML reports application clocks (`nvidia-smi -ac`), but not locked clocks (`nvidia-smi -lgc`), which count as
        unlocked.
        """
        clock, most = self.after.sm_mhz, self.after.max_sm_mhz
        if (self.before.reasons or 0) & (self.after.reasons or 0) & HELD:
            return "locked" if clock is None else f"locked at {clock} MHz"
        return "unlocked" if clock is None else f"unlocked at {clock} of {most or 'unknown'} MHz"

    def contention(self) -> list[str]:
        """What made the runs slower than the GPU is, in words."""
        found = []
        others = max(self.before.others or 0, self.after.others or 0)
        if others:
            found.append(f"{others} other {'process' if others == 1 else 'processes'} on the GPU")
        slowed = GpuState(reasons=((self.before.reasons or 0) | (self.after.reasons or 0)) & SLOWED)
        if slowed.reasons:
            found.append(f"the GPU's clock was held back: {slowed.reason_names}")
        return found

    def as_state(self) -> DeviceState:
        """All facts by name, those of `CHANGING` from before and after."""
        facts: DeviceState = {}
        for name, now in vars(self.after).items():
            then = getattr(self.before, name)
            if name == "reasons":
                facts["clock_reasons_before"] = None if then is None else self.before.reason_names
                facts["clock_reasons_after"] = None if now is None else self.after.reason_names
            elif name in CHANGING:
                facts |= {f"{name}_before": then, f"{name}_after": now}
            else:
                facts[name] = now
        return facts


def read_gpu() -> GpuState | None:
    """The state of the GPU that CUDA would use first; None when the library or the GPU is missing. It never raises.

    CUDA may number GPUs otherwise than NVML (`CUDA_DEVICE_ORDER`); with several kinds in one machine,
    `CUDA_VISIBLE_DEVICES` should name the GPU by its UUID.
    """
    with suppress(Exception), nvml_session() as nvml:
        return _state(nvml, handle_of(nvml))
    return None


def gpu_memory_bytes() -> int | None:
    """Memory of the GPU that this process holds; None when it cannot be read. It never raises."""
    with suppress(Exception), nvml_session() as nvml:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle_of(nvml))
        own = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        if not own and len(processes) == 1:
            own = [processes[0].usedGpuMemory]  # in a container processes have other numbers
        return int(own[0]) if own and own[0] is not None else None
    return None


@contextmanager
def nvml_session() -> Iterator[Any]:
    """NVIDIA's management library, in use. Raises: ImportError without it; what it raises without a fitting driver"""
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def handle_of(nvml: Any) -> Any:
    """The GPU that CUDA would use first, as `read_gpu` says. Raises: what the library raises"""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first or 0))


def _state(nvml: Any, gpu: Any) -> GpuState:
    def read(name: str, *arguments: Any) -> Any:
        """What a function of the library returns, or None: drivers lack some, and cards do not support others."""
        try:
            value = getattr(nvml, name)(*arguments)
        except (nvml.NVMLError, AttributeError):
            return None
        return value.decode() if isinstance(value, bytes) else value

    def watts(name: str) -> float | None:
        milliwatts = read(name, gpu)
        return None if milliwatts is None else milliwatts / 1000

    reasons = read("nvmlDeviceGetCurrentClocksEventReasons", gpu)
    if reasons is None:
        reasons = read("nvmlDeviceGetCurrentClocksThrottleReasons", gpu)
    persistence = read("nvmlDeviceGetPersistenceMode", gpu)
    processes = read("nvmlDeviceGetComputeRunningProcesses", gpu)
    return GpuState(
        driver=read("nvmlSystemGetDriverVersion"),
        sm_mhz=read("nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_SM),
        max_sm_mhz=read("nvmlDeviceGetMaxClockInfo", gpu, nvml.NVML_CLOCK_SM),
        memory_mhz=read("nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_MEM),
        max_memory_mhz=read("nvmlDeviceGetMaxClockInfo", gpu, nvml.NVML_CLOCK_MEM),
        reasons=reasons,
        temperature_c=read("nvmlDeviceGetTemperature", gpu, nvml.NVML_TEMPERATURE_GPU),
        power_w=watts("nvmlDeviceGetPowerUsage"),
        power_limit_w=watts("nvmlDeviceGetEnforcedPowerLimit"),
        persistence=None if persistence is None else bool(persistence),
        others=None if processes is None else _others([process.pid for process in processes]),
    )


def _others(pids: list[int]) -> int:
    """How many of the processes are not this one. In a container none may have our number, and one is us."""
    own = os.getpid()
    return sum(pid != own for pid in pids) if own in pids or not pids else len(pids) - 1
