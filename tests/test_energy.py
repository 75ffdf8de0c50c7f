"""How much energy a network takes, told by stand-ins for Linux's counters and NVIDIA's library."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_study import fake_timing
from test_bench import row, text_of
from test_device_matrix import assessed, on_target, space
from test_gpu_state import FakeLibrary, NVMLError
from test_timing import readings

from archdsl.errors import StudyError
from archdsl.language import loads_space
from archdsl.language.text.quantities import read_energy
from archdsl.latency import Ratio, Timing, TimingCache, compare, measure
from archdsl.latency.summary import Conditions, summarize
from archdsl.latency.worker import main as worker
from archdsl.report.front_csv import columns
from archdsl.report.front_table import value_text
from archdsl.runs.search import search
from archdsl.runs.search_parts import SearchParts
from archdsl.runtimes.artefact import Artefact, OutputShape
from archdsl.runtimes.target import Target, resolve
from archdsl.study.candidate import Infeasible
from archdsl.study.front.pareto import front_of
from archdsl.study.objectives import BadValues, objective_named
from archdsl.study.record import Record
from archdsl.telemetry import energy as module
from archdsl.telemetry.energy import (
    PARTS,
    STANDS_STILL_S,
    WINDOW_S,
    Energy,
    EnergyUnavailable,
    Rapl,
    energy_meter,
    measure_energy,
    why_no_energy,
)

WATTS = 200.0


class Device:
    """A clock that only runs make go on, and a counter that shows what was used up to its last tick.

    idle_s: what a look at the counter takes
    """

    how = "a stand-in"

    def __init__(self, tick_s: float = 0.001, run_s: float = 0.003, watts: float = WATTS):
        self.tick_s, self.run_s, self.watts = tick_s, run_s, watts
        self.at_s, self.runs, self.looks = 0.0, 0, 0

    def now(self) -> float:
        return self.at_s

    def run(self) -> None:
        self.at_s += self.run_s
        self.runs += 1

    def read_mj(self) -> float:
        self.looks += 1
        return self.at_s // self.tick_s * self.tick_s * self.watts * 1000


def taken(device: Device) -> Energy:
    return measure_energy(device.run, device, device.now)


# --- the window -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tick_s", [0.001, 0.02, 0.0937])
@pytest.mark.parametrize("run_s", [0.0004, 0.003, 0.0171])
def test_a_rarely_moving_counter_gives_the_energy_of_a_run(tick_s: float, run_s: float) -> None:
    device = Device(tick_s, run_s)
    found = taken(device)
    assert found.mj_per_run == pytest.approx(run_s * WATTS * 1000, rel=0.025)
    assert found.plus_minus_mj is not None and found.plus_minus_mj < 0.1 * run_s * WATTS * 1000
    assert WINDOW_S <= device.at_s <= 1.7 * WINDOW_S
    assert device.looks <= 1.8 * WINDOW_S / module.POLL_S


def test_a_slow_network_runs_a_few_times_and_no_more() -> None:
    device = Device(0.1, 7.0)
    found = taken(device)
    assert device.runs == 1 + module.FEWEST_PARTS
    assert found.mj_per_run == pytest.approx(7.0 * WATTS * 1000, rel=0.02)


def test_a_power_that_changes_within_the_window_shows_in_the_interval() -> None:
    class Warming(Device):
        def read_mj(self) -> float:
            return (self.at_s + 0.3 * self.at_s**2) * self.watts * 1000

    steady, warming = taken(Device()), taken(Warming())
    assert (steady.plus_minus_mj or 0) < 0.02 * (steady.mj_per_run or 0)
    assert (warming.plus_minus_mj or 0) > 0.1 * (warming.mj_per_run or 0)


def test_a_counter_that_stands_still_is_none() -> None:
    device = Device(tick_s=1e9)
    with pytest.raises(EnergyUnavailable, match="the counter does not move"):
        taken(device)
    assert device.at_s < 2 * STANDS_STILL_S


# --- processors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Linux's tree of a machine with two packages, what is in one of them, and the whole system."""
    monkeypatch.setattr(module, "_POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr(module, "_CPUS", tmp_path / "cpu")
    for zone, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "dram"), ("1", "package-1"), ("2", "psys")):
        folder = tmp_path / "powercap" / f"intel-rapl:{zone}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n", encoding="ascii")
        (folder / "max_energy_range_uj").write_text("1000000\n", encoding="ascii")
        (folder / "energy_uj").write_text("999000\n", encoding="ascii")
    (tmp_path / "powercap" / "intel-rapl-mmio:0").mkdir()
    for core in range(4):
        folder = tmp_path / "cpu" / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{core // 2}\n", encoding="ascii")
    return tmp_path / "powercap"


def use(powercap: Path, zone: str, uj: int) -> None:
    (powercap / f"intel-rapl:{zone}" / "energy_uj").write_text(f"{uj}\n", encoding="ascii")


def test_packages_are_added_up_and_nothing_is_counted_twice(powercap: Path) -> None:
    meter = Rapl()
    assert meter.how == "RAPL of package-0, package-1"
    for zone in ("0", "0:0", "0:1", "1", "2"):
        use(powercap, zone, 999_500)
    assert meter.read_mj() == pytest.approx(1.0)
    assert meter.read_mj() == pytest.approx(1.0), "nothing was used since"


def test_a_counter_that_begins_anew_goes_on(powercap: Path) -> None:
    meter = Rapl()
    use(powercap, "0", 4_000)
    assert meter.read_mj() == pytest.approx(5.0)
    use(powercap, "0", 6_000)
    use(powercap, "1", 0)
    assert meter.read_mj() == pytest.approx(8.0)


def test_only_the_package_that_works_is_counted(powercap: Path) -> None:
    for cores, how in (((2, 3), "package-1"), ((0,), "package-0"), ((1, 2), "package-0, package-1"), ((9,), None)):
        assert Rapl(cores).how == f"RAPL of {how or 'package-0, package-1'}"


def test_without_counters_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POWERCAP", tmp_path / "none")
    assert "no energy counters of its processor" in (why_no_energy("cpu") or "")


def test_a_counter_that_only_root_may_read_is_told(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_energy("cpu") is None
    read = Path.read_text

    def guarded(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", guarded)
    assert "only root may read" in (why_no_energy("cpu") or "")
    assert "intel-rapl:0/energy_uj" in (why_no_energy("cpu") or "")


# --- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(**facts: Any) -> FakeLibrary:
        found = FakeLibrary(**{"nvmlDeviceGetTotalEnergyConsumption": 7_000, **facts})
        monkeypatch.setitem(sys.modules, "pynvml", found)
        return found

    return install


def test_a_gpu_counts_its_millijoules_itself(library: Any) -> None:
    fake = library()
    with energy_meter("cuda") as meter:
        fake.facts["nvmlDeviceGetTotalEnergyConsumption"] = 7_450
        assert meter.read_mj() == 450
        assert "energy counter" in meter.how
        assert fake.shut == 0
    assert fake.shut == 1
    assert ("nvmlDeviceGetTotalEnergyConsumption", ("gpu 0",)) in fake.asked


def test_a_gpu_without_a_counter_has_its_power_added_up(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    milliwatts = iter([100_000, 300_000, 300_000])
    fake = library(
        nvmlDeviceGetTotalEnergyConsumption=NVMLError("Not Supported"),
        nvmlDeviceGetPowerUsage=lambda gpu: next(milliwatts),
    )
    device = Device(run_s=0.5)
    meter = module._GpuPower(fake, "gpu 0", device.now)
    device.run()
    assert meter.read_mj() == pytest.approx(0.5 * 200_000)
    device.run()
    assert meter.read_mj() == pytest.approx(0.5 * 200_000 + 0.5 * 300_000)
    milliwatts = iter([1, 1])
    with energy_meter("cuda") as found:
        assert "power times the time" in found.how


def test_a_gpu_that_tells_nothing_has_a_reason(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {
        "nvmlDeviceGetTotalEnergyConsumption": NVMLError("a"),
        "nvmlDeviceGetPowerUsage": NVMLError("Not Supported"),
    }
    for facts, told in (
        (silent, "does not tell its energy (nvmlDeviceGetPowerUsage: Not Supported)"),
        ({"nvmlInit": NVMLError("Driver Not Loaded")}, "does not start: Driver Not Loaded"),
        ({"nvmlDeviceGetHandleByIndex": NVMLError("Not Found")}, "there is no GPU to ask: Not Found"),
    ):
        library(**facts)
        assert told in (why_no_energy("cuda") or "")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'archdsl[gpu]'" in (why_no_energy("cuda") or "")


def test_the_real_library_has_what_is_asked_for() -> None:
    real = pytest.importorskip("pynvml")
    assert hasattr(real, "nvmlDeviceGetTotalEnergyConsumption")
    assert hasattr(real, "nvmlDeviceGetPowerUsage")


# --- in a timing ------------------------------------------------------------------------------------------------------


def test_a_timing_has_the_energy_of_one_image_and_says_who_counted() -> None:
    taken = readings([1.0] * 30)
    conditions = Conditions("1", {}, None)
    found = summarize(
        taken, resolve(Target("null", batch=4)), "abc", conditions, energy=Energy(40.0, 2.0, "RAPL of package-0")
    )
    assert (found.energy_mj_per_image, found.energy_plus_minus_mj) == (10.0, 0.5)
    assert found.energy_note == "RAPL of package-0"
    assert Timing.from_json(found.as_json()) == found
    untold = summarize(
        taken, resolve(Target("null")), "abc", conditions, energy=Energy(None, None, "unknown: no counter")
    )
    assert (untold.energy_mj_per_image, untold.energy_note) == (None, "unknown: no counter")
    unasked = summarize(taken, resolve(Target("null")), "abc", conditions)
    assert (unasked.energy_mj_per_image, unasked.energy_note) == (None, "")


class Answering:
    """A worker that answers each job with made-up readings, and with an energy where the job asks for it."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    def run(self, job: dict[str, Any], *, deadline_s: float) -> dict[str, Any]:
        self.jobs.append({**job, "deadline_s": deadline_s})
        num = len(job["artefacts"])
        energies = [Energy(30.0 + i, 1.0, "made up").as_json() for i in range(num)]
        return {
            "readings": [readings([1.0] * 30).as_json() for _ in range(num)],
            "peak_memory_bytes": [None] * num,
            "energy": energies if job["energy"] else [],
            "runtime_version": "1",
            "environment": {},
            "cores": None,
            "gpu": None,
        }


def artefact(name: str) -> Artefact:
    return Artefact("spec", name, (3,), text="", name=name)


def test_the_worker_is_asked_for_it_only_when_somebody_wants_it() -> None:
    answering: Any = Answering()
    both = [artefact("a"), artefact("b")]
    assert [t.energy_mj_per_image for t in compare(both, Target("torch"), worker=answering).timings] == [None, None]
    found = compare(both, Target("torch"), worker=answering, energy=True)
    assert [t.energy_mj_per_image for t in found.timings] == [30.0, 31.0]
    without, with_it = (job["deadline_s"] for job in answering.jobs)
    assert with_it >= without + 2 * WINDOW_S


def test_a_kept_timing_without_energy_is_taken_again_only_where_it_would_be_told(
    tmp_path: Path, powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, answering, target = TimingCache(tmp_path / "cache"), Answering(), Target("torch")
    here: dict[str, Any] = {"cache": cache, "worker": answering}
    measure(artefact("a"), target, **here)
    measure(artefact("a"), target, **here)
    assert len(answering.jobs) == 1
    monkeypatch.setattr(module, "_POWERCAP", tmp_path / "none")
    assert measure(artefact("a"), target, energy=True, **here).energy_mj_per_image is None
    assert len(answering.jobs) == 1
    monkeypatch.setattr(module, "_POWERCAP", powercap)
    assert measure(artefact("a"), target, energy=True, **here).energy_mj_per_image == 30.0
    assert measure(artefact("a"), target, energy=True, **here).energy_mj_per_image == 30.0
    assert len(answering.jobs) == 2


class LoadedNetwork:
    """A network whose runs use energy."""

    def __init__(self, device: Device):
        self.device, self.known_ms = device, None

    def timed(self, x_BX: Any) -> Any:
        return self.device.run


def test_the_worker_takes_one_network_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = Device(run_s=0.001), Device(run_s=0.004)
    devices = iter([small, large])
    monkeypatch.setattr(worker, "energy_meter", lambda device, cores: _opened(next(devices)))
    monkeypatch.setattr(worker, "measure_energy", lambda call, meter: measure_energy(call, meter, meter.now))
    found = worker.energies_of([(LoadedNetwork(small), None), (LoadedNetwork(large), None)], Target("torch"), (0,))  # type: ignore[list-item,arg-type]
    assert [each.mj_per_run for each in found] == pytest.approx([200.0, 800.0], rel=0.02)


def _opened(device: Device) -> Any:
    from contextlib import nullcontext

    return nullcontext(device)


def test_where_nobody_tells_the_worker_says_why_and_times_all_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_POWERCAP", tmp_path / "none")
    found = worker.energies_of([(LoadedNetwork(Device()), None)], Target("torch"), None)  # type: ignore[list-item,arg-type]
    assert found[0].mj_per_run is None and found[0].note.startswith("unknown: the system has no energy counters")


def test_a_network_is_timed_and_its_energy_taken_in_a_real_worker(tmp_path: Path) -> None:
    """What this machine tells, or why it does not; the time is there in any case."""
    from test_worker import make_onnx

    pytest.importorskip("onnxruntime")
    make_onnx(tmp_path / "m.onnx")
    tiny = Artefact(
        "onnx", "h", (3, 8, 8), path=tmp_path / "m.onnx", outputs=(OutputShape("logits", (10,)),), name="tiny"
    )
    found = measure(tiny, Target(), budget_s=0.05, energy=True)
    assert found.median_ms > 0
    assert (found.energy_mj_per_image is None) == found.energy_note.startswith("unknown: ")
    assert found.energy_note != ""


# --- in a study -------------------------------------------------------------------------------------------------------


def test_energy_is_an_objective_of_each_target_and_has_a_limit() -> None:
    from archdsl.language.space.objectives import JouleBounds

    values, _, _ = assessed(["latency@a", "energy@a"], {}, a=on_target(1, energy_mj_per_image=12.5))
    assert values[1] == 12.5
    assert assessed(["latency@a"], {"energy@a": JouleBounds(max=13.0)}, a=on_target(1, energy_mj_per_image=12.5))
    with pytest.raises(Infeasible, match=r"energy@a is 12.5, but must be at most 12"):
        assessed(["latency@a"], {"energy@a": JouleBounds(max=12.0)}, a=on_target(1, energy_mj_per_image=12.5))
    assert list(space("{latency: {}, energy: {}}").objectives.names) == ["latency", "energy"]
    assert objective_named("energy").title == "energy (mJ/image)"


def test_an_energy_that_is_not_known_is_said_with_its_reason_and_no_value() -> None:
    told = r"how much energy a network needs in null on cpu \(no counter\): leave energy@a out"
    with pytest.raises(BadValues, match=told):
        assessed(["energy@a"], {}, a=on_target(1, energy_note="unknown: no counter"))
    assert assessed(["latency@a"], {}, a=on_target(1, energy_note="unknown: no counter"))[0]


def test_networks_whose_energies_overlap_are_tied() -> None:
    def record(number: int, mj: float, accuracy: float) -> Record:
        timing = fake_timing(1.0, energy_mj_per_image=mj, energy_plus_minus_mj=0.5)
        return Record(number, "complete", {}, hash=str(number), values=(mj, accuracy), timing=timing)

    objectives = [objective_named("energy"), replace(objective_named("accuracy"))]
    front = front_of([record(0, 5.0, 0.5), record(1, 5.8, 0.5), record(2, 7.0, 0.5)], objectives)
    assert front.members[0].point.intervals[0] == (4.5, 5.5)
    assert [point.record.number for point in front.contenders] == [1]
    assert [point.record.number for point in front.others] == [2]


@pytest.mark.parametrize(
    ("text", "mj"), [("5 mJ", 5.0), ("0.2J", 200.0), ("300 uJ", 0.3), ("300µJ", 0.3), (3, 3.0), ("1_000", 1000.0)]
)
def test_an_energy_reads(text: Any, mj: float) -> None:
    assert read_energy(text) == pytest.approx(mj)


@pytest.mark.parametrize("text", ["5 kJ", "much", "-1 mJ", "", True, None])
def test_an_energy_that_is_none_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="an energy such as"):
        read_energy(text)


SPACE = """
name: frugal
base: micro_swin
choices: {stages.0.window: [2, 4]}
constraints: {energy: {max: 0.2 J}}
objectives:
  latency: {runtime: RUNTIME}
  energy: {}
search: {trials: 2}
"""


def test_a_study_of_energies_that_nobody_tells_ends_before_anything_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POWERCAP", tmp_path / "none")
    with pytest.raises(StudyError, match="null runs nothing") as caught:
        search(loads_space(SPACE.replace("RUNTIME", '"null"')), out=tmp_path / "run")
    assert (caught.value.problems[0].rule, caught.value.problems[0].place.line) == ("no-energy", 8)
    limited = SPACE.replace("RUNTIME", '"null"').replace("  energy: {}\n", "  params: {}\n")
    with pytest.raises(StudyError, match="null runs nothing") as caught:
        search(loads_space(limited), out=tmp_path / "run")
    assert caught.value.problems[0].place.line == 5  # the constraint that asks for it
    with pytest.raises(
        StudyError, match=r"no counter gives the energy of a network in onnxruntime on cpu, fp32, batch 1: the system"
    ):
        search(loads_space(SPACE.replace("RUNTIME", "onnxruntime")), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_study_that_wants_no_energy_takes_none(powercap: Path) -> None:
    both = loads_space(SPACE.replace("RUNTIME", "onnxruntime"))
    assert SearchParts(both, (), None).latencies[""].energy
    assert SearchParts(both, ["latency"], None).latencies[""].energy, "the constraint wants it"
    plain = loads_space(SPACE.replace("RUNTIME", "onnxruntime").replace("constraints: {energy: {max: 0.2 J}}", ""))
    assert not SearchParts(plain, ["latency"], None).latencies[""].energy


# --- shown ------------------------------------------------------------------------------------------------------------


def test_an_energy_is_shown_with_its_interval() -> None:
    timing = fake_timing(2.0, energy_mj_per_image=12.34, energy_plus_minus_mj=0.21)
    record = Record(0, "complete", {}, timing=timing)
    assert value_text(record, objective_named("energy")) == "12.3 mJ ± 0.21"
    assert value_text(Record(0, "complete", {}), objective_named("energy")) == "–"
    assert "energy_mj_per_image" in columns() and "energy@bulk_mj_per_image" in columns(["bulk"])


def test_the_table_of_a_bench_has_energies_where_there_are_any() -> None:
    known = row("a", Ratio(1, 1, 1), energy_mj_per_image=3456.7, energy_plus_minus_mj=12.0)
    assert "energy/image" not in text_of([row("a", Ratio(1, 1, 1))])
    shown = text_of([known, row("b", Ratio(1, 1, 1))])
    assert "energy/image" in shown and "3457 mJ ± 12" in shown


def test_the_window_has_parts() -> None:
    assert PARTS >= 5 and WINDOW_S / PARTS >= 0.1, "a part holds a move of NVML's counter, which comes every 0.1 s"
