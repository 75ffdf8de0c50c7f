"""What a GPU says about itself, told by a stand-in for NVIDIA's library; no GPU is needed or used."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
from test_timing import readings

from archdsl.latency import Timing
from archdsl.latency.summary import Conditions, contention_of, summarize
from archdsl.runtimes.target import Target, resolve
from archdsl.telemetry.gpu import CHANGING, REASONS, GpuState, GpuStates, gpu_memory_bytes, read_gpu


class NVMLError(Exception):
    pass


class FakeLibrary(SimpleNamespace):
    """Answers as `pynvml` does on a healthy GPU; facts can be changed, or be exceptions to raise."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, **facts):
        self.asked, self.shut = [], 0
        self.facts = {
            "nvmlInit": None,
            "nvmlSystemGetDriverVersion": "580.95.05",
            "nvmlDeviceGetClockInfo": lambda gpu, kind: {1: 1410, 2: 1593}[kind],
            "nvmlDeviceGetMaxClockInfo": lambda gpu, kind: {1: 1980, 2: 2619}[kind],
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlDeviceGetTemperature": 41,
            "nvmlDeviceGetPowerUsage": 123_456,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid(), usedGpuMemory=2**30)],
            "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
            "nvmlDeviceGetHandleByUUID": lambda uuid: f"gpu {uuid}",
            **facts,
        }

    def nvmlShutdown(self):
        self.shut += 1

    def __getattr__(self, name):
        if name == "facts" or name not in self.facts:
            raise AttributeError(name)
        fact = self.facts[name]

        def answer(*arguments):
            self.asked.append((name, arguments))
            if isinstance(fact, Exception):
                raise fact
            return fact(*arguments) if callable(fact) else fact

        return answer


@pytest.fixture
def library(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(**facts):
        found = FakeLibrary(**facts)
        monkeypatch.setitem(sys.modules, "pynvml", found)
        return found

    return install


def test_a_look_has_every_fact_in_its_unit(library):
    fake = library()
    assert read_gpu() == GpuState(
        driver="580.95.05",
        sm_mhz=1410,
        max_sm_mhz=1980,
        memory_mhz=1593,
        max_memory_mhz=2619,
        reasons=0,
        temperature_c=41,
        power_w=123.456,
        power_limit_w=700.0,
        persistence=True,
        others=0,
    )
    assert fake.shut == 1


def test_without_the_library_a_driver_or_a_gpu_nothing_is_known(library, monkeypatch):
    for facts in ({"nvmlInit": NVMLError("no driver")}, {"nvmlDeviceGetHandleByIndex": NVMLError("no GPU")}):
        library(**facts)
        assert read_gpu() is None and gpu_memory_bytes() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_gpu() is None


def test_a_fact_that_the_card_does_not_tell_is_left_open(library):
    fake = library(nvmlDeviceGetPowerUsage=NVMLError("not supported"), nvmlSystemGetDriverVersion=b"535.1")
    del fake.facts["nvmlDeviceGetCurrentClocksEventReasons"]  # an older library
    fake.facts["nvmlDeviceGetCurrentClocksThrottleReasons"] = 4
    found = read_gpu()
    assert (found.power_w, found.driver, found.reasons, found.sm_mhz) == (None, "535.1", 4, 1410)


def test_other_processes_are_counted_without_us_also_where_we_have_another_number(library):
    def process(pid):
        return SimpleNamespace(pid=pid, usedGpuMemory=2**20)

    me = process(os.getpid())
    for pids, others in (([], 0), ([me], 0), ([me, process(1)], 1), ([process(1)], 0), ([process(1), process(2)], 1)):
        library(nvmlDeviceGetComputeRunningProcesses=pids)
        assert read_gpu().others == others


def test_the_gpu_that_cuda_would_use_is_asked(library, monkeypatch):
    for variable, handle in (("2,0", "gpu 2"), ("GPU-1234", "gpu GPU-1234"), ("", "gpu 0")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
        fake = library()
        read_gpu()
        assert ("nvmlDeviceGetTemperature", (handle, 0)) in fake.asked


def test_the_memory_is_that_of_this_process(library):
    library()
    assert gpu_memory_bytes() == 2**30
    library(nvmlDeviceGetComputeRunningProcesses=[SimpleNamespace(pid=1, usedGpuMemory=None)])
    assert gpu_memory_bytes() is None


CALM = GpuState(sm_mhz=1980, max_sm_mhz=1980, reasons=0, others=0)


def test_application_clocks_are_locked_and_others_are_not():
    held = GpuState(sm_mhz=1410, max_sm_mhz=1980, reasons=0x2)
    assert GpuStates(held, held).clock_state == "locked at 1410 MHz"
    assert GpuStates(CALM, held).clock_state == "unlocked at 1410 of 1980 MHz"
    assert GpuStates(GpuState(), GpuState()).clock_state == "unlocked"


def test_what_slows_a_gpu_is_contention_and_idling_is_not():
    assert GpuStates(GpuState(reasons=0x1, others=0), CALM).contention() == []
    hot = GpuState(reasons=0x1 | 0x20 | 0x4, others=1)
    assert GpuStates(CALM, hot).contention() == [
        "1 other process on the GPU",
        "the GPU's clock was held back: power cap, thermal slowdown by the driver",
    ]


def test_a_timing_on_a_gpu_carries_its_state_and_judges_by_it():
    states = GpuStates(CALM, GpuState(sm_mhz=1200, max_sm_mhz=1980, reasons=0x40, temperature_c=88, others=0))
    found = summarize(readings([1.0] * 30), resolve(Target("null")), "abc", Conditions("1", {}, None, states))
    assert found.clock_state == "unlocked at 1200 of 1980 MHz"
    assert found.device_state["clock_reasons_after"] == "thermal slowdown by the hardware"
    assert (found.device_state["sm_mhz_before"], found.device_state["sm_mhz_after"]) == (1980, 1200)
    assert {f"{name}_after" for name in CHANGING} <= set(found.device_state)
    assert Timing.from_json(found.as_json()) == found
    assert "held back" in contention_of(readings([1.0] * 30), Target(), states)


def test_states_survive_json():
    states = GpuStates(CALM, GpuState())
    assert GpuStates.from_json(states.as_json()) == states


def test_every_name_that_is_asked_for_is_in_the_real_library(library):
    fake = library()
    read_gpu()
    gpu_memory_bytes()
    sys.modules.pop("pynvml")
    real = pytest.importorskip("pynvml")
    names = {name for name, _ in fake.asked} | {"nvmlShutdown", "nvmlDeviceGetHandleByUUID", "NVMLError"}
    names |= {"NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU", "nvmlDeviceGetCurrentClocksThrottleReasons"}
    assert {name for name in names if not hasattr(real, name)} == set()
    bits = {
        value
        for name, value in vars(real).items()
        if name.startswith(("nvmlClocksThrottleReason", "nvmlClocksEventReason")) and not name.endswith(("All", "None"))
    }
    assert bits == set(REASONS)
