"""How the CPU waits for the GPU: what the driver is told, and that it is a part of what a latency belongs to."""

from __future__ import annotations

import pytest

from archdsl.errors import ArchError, MeasureError
from archdsl.failures import reason_of
from archdsl.latency import Worker, measure
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.registry import RUNTIMES
from archdsl.runtimes.target import Target, gpu_parts, resolve
from archdsl.telemetry.gpu_wait import FLAGS, VARIABLE, set_gpu_wait


class FakeDriver:
    """The three calls of libcuda, and what was told to the device's primary context."""

    def __init__(self, **codes):
        self.codes, self.told = codes, []

    def cuInit(self, flags):
        assert flags == 0
        return self.codes.get("cuInit", 0)

    def cuDeviceGet(self, device, number):
        assert number == 0
        device._obj.value = 7
        return self.codes.get("cuDeviceGet", 0)

    def cuDevicePrimaryCtxSetFlags_v2(self, device, flags):
        self.told.append((device.value, flags))
        return self.codes.get("cuDevicePrimaryCtxSetFlags", 0)


@pytest.mark.parametrize(("how", "told"), [("spin", [(7, 1)]), ("block", [(7, 4)]), ("auto", []), ("", [])])
def test_the_driver_is_told_what_the_variable_says(how, told, monkeypatch):
    monkeypatch.setenv(VARIABLE, how)
    driver = FakeDriver()
    set_gpu_wait(driver)
    assert driver.told == told
    monkeypatch.delenv(VARIABLE)
    set_gpu_wait(driver)
    assert driver.told == told


def test_another_word_is_the_users_mistake(monkeypatch):
    monkeypatch.setenv(VARIABLE, "busy")
    for ask in (set_gpu_wait, lambda: gpu_parts("cuda")):
        with pytest.raises(ArchError, match="is one of auto, spin, block, got 'busy'") as caught:
            ask()
        assert caught.value.exit_code == 1


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxSetFlags"])
def test_a_driver_that_refuses_stops_the_measurement(call, monkeypatch):
    monkeypatch.setenv(VARIABLE, "spin")
    with pytest.raises(MeasureError, match=f"{call} gave the error 100") as caught:
        set_gpu_wait(FakeDriver(**{call: 100}))
    assert reason_of(caught.value) == "runtime-missing"


def test_no_driver_is_told(monkeypatch):
    monkeypatch.setenv(VARIABLE, "spin")

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(MeasureError, match="needs NVIDIA's driver, which cannot be loaded") as caught:
        set_gpu_wait()
    assert VARIABLE in caught.value.problems[0].hint


def test_it_is_a_part_of_what_a_latency_on_a_gpu_belongs_to(monkeypatch):
    monkeypatch.setattr("archdsl.runtimes.target.gpu_driver", lambda: "600.1")
    monkeypatch.setenv(VARIABLE, "block")
    monkeypatch.setitem(RUNTIMES, "faulty", "faulty_runtime")
    assert "| driver 600.1 | wait block |" in resolve(Target("faulty", device="cuda")).fingerprint
    assert "wait" not in resolve(Target("faulty")).fingerprint and "driver" not in resolve(Target("faulty")).fingerprint
    assert gpu_parts("cuda") == ["driver 600.1", "wait block"]
    assert gpu_parts("cpu") == []
    monkeypatch.setenv(VARIABLE, "auto")
    assert gpu_parts("cuda") == ["driver 600.1"]
    monkeypatch.setattr("archdsl.runtimes.target.gpu_driver", lambda: None)
    assert gpu_parts("cuda") == []


def test_the_worker_sets_it_before_it_loads_a_network_and_records_it(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "faulty", "faulty_runtime")
    artefact = Artefact("spec", "h", (4, 2), text="none")
    monkeypatch.setenv(VARIABLE, "auto")
    with Worker(memory_bytes=0) as worker:
        timing = measure(artefact, Target("faulty", device="cuda"), worker=worker, budget_s=0.03)
    assert timing.environment[VARIABLE] == "auto"
    monkeypatch.setenv(VARIABLE, "spin")
    with Worker(memory_bytes=0) as worker:
        measure(artefact, Target("faulty"), worker=worker, budget_s=0.03)  # a CPU is not waited for
        if driver_is_there():
            return
        with pytest.raises(MeasureError, match="which cannot be loaded"):
            measure(artefact, Target("faulty", device="cuda"), worker=worker, budget_s=0.03)


def driver_is_there():
    import ctypes

    try:
        return bool(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return False


def test_the_flags_are_those_of_cuda_h():
    assert dict(FLAGS) == {"auto": 0x00, "spin": 0x01, "block": 0x04}
