"""`archdsl bench`: a matrix of targets, networks that fail, networks of timm; and the table."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_study import fake_timing
from rich.console import Console

from archdsl.cli.main import run
from archdsl.errors import ArchError, BackendError, MeasureError, Problem, SpecError, at_argument
from archdsl.failures import failed, reason_of
from archdsl.latency import Comparison, Ratio, TimingCache, Worker, close_workers, compare
from archdsl.latency.cache.quarantine import Quarantine
from archdsl.latency.sampling import Samples
from archdsl.latency.side_by_side import BenchmarkResult, side_by_side
from archdsl.report.bench_table import bench_table, footnotes
from archdsl.runtimes.artefact import Artefact, OutputShape, Reference
from archdsl.runtimes.target import Target
from archdsl.runtimes.timm_models import TimmNetwork, reference_network
from archdsl.telemetry.cpu import Usage

NULL = Target("null")


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    yield
    close_workers()


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["bench", *arguments, "--seconds", "0.1", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


# --- the matrix ------------------------------------------------------------------------------------------------------


def test_what_a_runtime_does_not_know_is_skipped_and_the_rest_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    told = bench(capsys, "micro_swin", "--on", "null,tensorrt:cuda", "--precision", "fp32,int8", "--batch", "1,8")
    assert [(row["target"]["runtime"], row["batch"]) for row in told["results"]] == [("null", 1), ("null", 8)]
    left = [(each["target"]["runtime"], each["target"]["precision"], each["reason"]) for each in told["skipped"]]
    assert left.count(("null", "int8", "unknown-name")) == 2
    assert left.count(("tensorrt", "fp32", "runtime-missing")) == 2
    assert all(each["message"] for each in told["skipped"])
    assert told["failed"] == []


def test_skipped_targets_are_shown_under_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "micro_swin", "--on", "null,tensorrt:cuda"]) == 0
    shown = capsys.readouterr().out
    assert "skipped: tensorrt on cuda, fp32, batch 1: " in shown and "[runtime-missing]" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--on", "nul"], "a runtime is one of"),
        (["--on", "null,nul"], "a runtime is one of"),
        (["--on", "null:gpu"], "a device is one of cpu, cuda, but got 'gpu'"),
        (["--on", "null", "--device", "tpu"], "a device is one of cpu, cuda, but got 'tpu'"),
        (
            ["--on", "null", "--precision", "fp32,fp31"],
            "--precision takes fp32, fp16, bf16, int8, int8-weights, fp8, but got 'fp31'",
        ),
        (["--on", "null", "--precision", "int8"], "null knows the precisions fp32, fp16, bf16 on cpu, got 'int8'"),
        (["--on", "null", "--batch", "1,0"], "batch is between 1 and 65536, got 0"),
        (["--on", "null", "--against", "swin"], "--against takes `timm:NAME`"),
    ],
)
def test_a_misspelt_word_is_an_error_and_not_skipped(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run(["bench", "micro_swin", *arguments]) == 1
    shown = capsys.readouterr()
    assert told in shown.err and shown.out == ""


def test_a_device_belongs_to_its_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    told = bench(capsys, "micro_swin", "--on", "null:cpu,null", "--device", "cuda")
    assert [row["target"]["device"] for row in told["results"]] == ["cpu"]
    assert [(left["target"]["device"], left["reason"]) for left in told["skipped"]] == [("cuda", "unknown-name")]


def test_json_has_the_timing_its_ratio_and_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = bench(capsys, "micro_swin", "micro_swin_free", "--on", "null")["results"]
    assert {"median_ms", "ci_low_ms", "ci_high_ms", "p5_ms", "p95_ms", "runs", "contended", "peak_memory_bytes"} <= set(
        first
    )
    assert (first["ratio"], first["ratio_to"], first["verdict"]) == (1.0, "micro_swin", "same")
    assert second["ratio"] == pytest.approx(second["median_ms"] / first["median_ms"])
    assert second["verdict"] == "slower" and second["macs"] > first["macs"]


# --- networks that fail ----------------------------------------------------------------------------------------------


class Fake:
    """An entrant that can be made or not."""

    def __init__(self, name: str, error: ArchError | None = None):
        self.name, self.error = name, error

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        if self.error is not None:
            raise self.error
        return Artefact(
            "null", self.name, (3, 4, 4), name=self.name, macs=1000, outputs=(OutputShape("logits", (2,)),)
        ), None


class FakeRuntime:
    """`compare` and `measure` that fail for chosen networks. most: networks that fit at once"""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: dict[str, MeasureError], most: int = 100):
        self.failing, self.most, self.groups = failing, most, []  # type: dict[str, MeasureError], int, list[list[str]]
        monkeypatch.setattr("archdsl.latency.side_by_side.compare", self.compare)
        monkeypatch.setattr("archdsl.latency.side_by_side.measure", self.measure)

    def compare(self, artefacts: Any, target: Target, **more: Any) -> Comparison:
        names = [artefact.name for artefact in artefacts]
        self.groups.append(names)
        for name in names:
            self.measure_named(name)
        if len(names) > self.most:
            raise failed("out-of-memory", "an allocation failed")
        timings = tuple(fake_timing(float(len(name)), graph_hash=name) for name in names)
        ratios = tuple(Ratio(r, r, r) for r in (t.median_ms / timings[0].median_ms for t in timings))
        return Comparison(timings, ratios)

    def measure(self, artefact: Artefact, target: Target, **more: Any) -> Any:
        self.measure_named(artefact.name)
        return fake_timing()

    def measure_named(self, name: str) -> None:
        if name in self.failing:
            raise self.failing[name]


def standings(*entrants: Fake) -> list[BenchmarkResult]:
    return side_by_side(entrants, NULL, Path("/nowhere"))


CRASH = failed("crash", "the worker crashed (SIGSEGV)")


def test_a_network_that_crashes_is_told_and_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(monkeypatch, {"bb": CRASH})
    a, b, c = standings(Fake("a"), Fake("bb"), Fake("ccc"))
    assert b.error is CRASH and b.timing is None and b.ratio is None
    assert (a.against, c.against, c.ratio and c.ratio.median) == ("a", "a", 3.0)
    assert runtime.groups == [["a", "bb", "ccc"], ["a", "ccc"]]


def test_when_the_first_fails_ratios_are_to_the_first_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRuntime(monkeypatch, {"a": CRASH})
    a, b, c = standings(Fake("a"), Fake("bb"), Fake("cccc"))
    assert a.error is CRASH
    assert (b.against, b.ratio and b.ratio.median, c.against, c.ratio and c.ratio.median) == ("bb", 1.0, "bb", 2.0)


def test_a_network_that_cannot_be_made_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRuntime(monkeypatch, {})
    error = BackendError(Problem(at_argument("x", "x"), "unsupported", "no such op"))
    a, b = standings(Fake("a", error), Fake("bb"))
    assert a.error is error and b.against == "bb"


def test_networks_that_do_not_fit_at_once_each_take_turns_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(monkeypatch, {}, most=2)
    found = standings(Fake("a"), Fake("bb"), Fake("ccc"))
    assert [standing.ratio and standing.ratio.median for standing in found] == [1.0, 2.0, 3.0]
    assert runtime.groups == [["a", "bb", "ccc"], ["a", "bb"], ["a", "ccc"]]


def test_networks_that_fit_only_alone_are_told_but_the_first_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRuntime(monkeypatch, {}, most=1)
    a, b = standings(Fake("a"), Fake("bb"))
    assert a.timing is not None and a.ratio is not None
    assert b.error is not None and reason_of(b.error) == "out-of-memory"  # type: ignore[arg-type]


def test_when_nothing_works_every_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    other = failed("numeric-gate", "the output differs")
    FakeRuntime(monkeypatch, {"a": CRASH, "bb": other})
    assert [standing.error for standing in standings(Fake("a"), Fake("bb"))] == [CRASH, other]
    assert [standing.error for standing in standings(Fake("a"))] == [CRASH]


def test_the_command_lists_what_failed_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeRuntime(monkeypatch, {"micro_swin": CRASH})
    told = bench(capsys, "micro_swin", "micro_swin_free", "--on", "null")
    assert [row["ratio_to"] for row in told["results"]] == ["micro_swin_free"]
    assert [(each["spec"], each["reason"]) for each in told["failed"]] == [("micro_swin", "crash")]
    assert run(["bench", "micro_swin", "micro_swin_free", "--on", "null"]) == 0
    assert "failed: micro_swin on null on cpu, fp32, batch 1: the worker crashed (SIGSEGV) [crash]" in (
        capsys.readouterr().out
    )
    assert run(["bench", "micro_swin", "--on", "null", "--json"]) == 2, "nothing was measured"
    assert json.loads(capsys.readouterr().out)["errors"][0]["rule"] == "crash"


class Crashing(Worker):
    """A worker that one network crashes. asked: the names of each job"""

    def __init__(self, name: str):
        super().__init__()
        self.name, self.asked = name, []  # type: str, list[list[str]]

    def run(self, job: Any, *, deadline_s: float) -> Any:
        names = [artefact["name"] for artefact in job["artefacts"]]
        self.asked.append(names)
        if self.name in names:
            raise CRASH
        quiet = Samples((1.0, 1.0), (1.0, 1.0), (0, 1), 1, 0.0, Usage(None, None, None))
        rest = {"runtime_version": "1", "environment": {}, "cores": None, "gpu": None}
        return {"readings": [quiet.as_json()] * len(names), "peak_memory_bytes": [None] * len(names), **rest}


def test_a_network_that_crashes_again_and_again_is_quarantined_by_a_bench_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker, cache = Crashing("bb"), TimingCache(tmp_path)
    monkeypatch.setattr("archdsl.latency.measurement.shared_worker", lambda target: worker)

    def take(*names: str) -> list[BenchmarkResult]:
        return side_by_side([Fake(name) for name in names], NULL, tmp_path, cache=cache)

    a, b = take("a", "bb")
    assert a.timing is not None and b.error is not None and reason_of(b.error) == "crash"  # type: ignore[arg-type]
    assert Quarantine(tmp_path).networks() == [], "of two in turns nobody knows which crashed; alone it did so twice"
    take("a", "bb")
    assert [(one.network, one.crashes) for one in Quarantine(tmp_path).networks()] == [("bb", 3)]
    worker.asked.clear()
    a, b = take("a", "bb")
    assert a.timing is not None and b.error is not None and reason_of(b.error) == "quarantined"  # type: ignore[arg-type]
    assert worker.asked == [["a"]], "and it does not come near a worker again"
    with pytest.raises(MeasureError, match="has crashed the worker 3 times"):
        compare([Fake(name).made(NULL, tmp_path)[0] for name in ("a", "bb")], NULL, cache=cache)
    assert worker.asked == [["a"]]


def test_a_network_alone_is_quarantined_and_a_success_forgives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker, cache = Crashing("bb"), TimingCache(tmp_path)
    monkeypatch.setattr("archdsl.latency.measurement.shared_worker", lambda target: worker)
    side_by_side([Fake("bb")], NULL, tmp_path, cache=cache)
    assert len((tmp_path / "crashes.jsonl").read_text().splitlines()) == 2
    worker.name = "nobody"
    side_by_side([Fake("a"), Fake("bb")], NULL, tmp_path, cache=cache)
    assert (tmp_path / "crashes.jsonl").read_text() == ""


def test_a_deadline_is_for_each_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[float | None] = []

    def take(artefacts: Any, target: Target, *, deadline_s: float | None, **more: Any) -> Comparison:
        given.append(deadline_s)
        return runtime.compare(artefacts, target)

    runtime = FakeRuntime(monkeypatch, {})
    monkeypatch.setattr("archdsl.latency.side_by_side.compare", take)
    bench(capsys, "micro_swin", "micro_swin_free", "--on", "null", "--deadline", "30min")
    bench(capsys, "micro_swin", "--on", "null")
    assert given == [2 * 1800.0, None]
    assert run(["bench", "micro_swin", "--on", "null", "--deadline", "soon"]) == 1
    assert "--deadline is a time such as" in capsys.readouterr().err


# --- the table -------------------------------------------------------------------------------------------------------


def row(name: str, ratio: Ratio, **changes: Any) -> dict[str, Any]:
    timing = fake_timing(2.0, 0.1)
    return {
        "spec": name,
        "target": Target("null").as_json(),
        **timing.as_json(),
        "images_per_second": timing.images_per_second,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "ratio_to": "a",
        "verdict": ratio.verdict,
        "notes": [],
        "shown": str(timing),
        "macs": 4_490_566_656,
        "peak_memory_bytes": 300 * 2**20,
        **changes,
    }


def text_of(rows: list[dict[str, Any]]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(bench_table(rows))
    return console.export_text()


def test_the_table_claims_nothing_that_intervals_do_not_separate() -> None:
    ratios = {"a": Ratio(1, 1, 1), "b": Ratio(0.5, 0.4, 0.6), "c": Ratio(1.5, 1.1, 2), "d": Ratio(0.9, 0.8, 1.01)}
    lines = text_of([row(name, ratio) for name, ratio in ratios.items()]).splitlines()
    verdict = {line.split()[0]: line for line in lines if line.split()[:1] and line.split()[0] in ratios}
    assert "1.000 same" in verdict["a"]
    assert "0.500 [0.400, 0.600] faster" in verdict["b"]
    assert "1.500 [1.100, 2.000] slower" in verdict["c"]
    assert "0.900 [0.800, 1.010] same" in verdict["d"]
    assert "300 MiB" in verdict["a"] and "4.49G" in verdict["a"] and "2.0 ms ± 0.1" in verdict["a"]


def test_a_note_is_told_once_below_the_table() -> None:
    rows = [row("a", Ratio(1, 1, 1), notes=["noisy"]), row("b", Ratio(1, 1, 1), notes=["slower", "noisy"])]
    assert footnotes(rows) == {"[1]": "noisy", "[2]": "slower"}
    assert "[2] [1]" in text_of(rows) and "noisy" not in text_of(rows)


# --- timm ------------------------------------------------------------------------------------------------------------


def test_timm_that_is_not_there_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MeasureError, match="timm") as caught:
        reference_network("timm:test_vit")
    assert reason_of(caught.value) == "runtime-missing"


@pytest.mark.parametrize(
    ("error", "told", "hint"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"), "timm, which is not installed", "archdsl[train]"),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), "`import timm` fails", "pip install yaml"),
        (RuntimeError("operator torchvision::nms does not exist"), "torchvision::nms", "fit together"),
    ],
)
def test_why_timm_cannot_be_imported_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str, hint: str
) -> None:
    import builtins

    real = builtins.__import__

    def broken(name: str, *rest: Any) -> Any:
        if name == "timm":
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(MeasureError, match=told) as caught:
        reference_network("timm:test_vit")
    assert hint in (caught.value.problems[0].hint or "")


def test_a_model_that_timm_does_not_have_is_told_with_its_neighbour(timm: ModuleType) -> None:
    with pytest.raises(SpecError, match="has no model `test_vitt`") as caught:
        reference_network("timm:test_vitt")
    assert "test_vit" in (caught.value.problems[0].hint or "")


def test_macs_of_timms_swin_are_those_of_ours(timm: ModuleType) -> None:
    from archdsl import cost

    network = reference_network("timm:swin_tiny_patch4_window7_224")
    assert network.macs == pytest.approx(cost("swin_t").macs, rel=1e-3)
    assert network.input_shape == (3, 224, 224)


def test_a_model_that_keeps_several_values_in_its_layers_is_counted(timm: ModuleType) -> None:
    """PyTorch's counter cannot do so while their gradients are wanted."""
    assert reference_network("timm:pit_ti_224").macs == pytest.approx(0.7e9, rel=0.1)


def test_a_model_that_cannot_be_counted_is_told_and_the_others_are_timed(
    timm: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(network: TimmNetwork) -> int:
        raise AssertionError("a module that is called twice")

    FakeRuntime(monkeypatch, {})
    monkeypatch.setattr(TimmNetwork, "macs", property(fails))
    monkeypatch.setattr(TimmNetwork, "_write", lambda *arguments: None)
    arguments = ["bench", "micro_swin", "--on", "onnxruntime", "--against", "timm:test_vit"]
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["spec"] for row in told["results"]] == ["micro_swin"]
    assert [(each["spec"], each["reason"]) for each in told["failed"]] == [("timm:test_vit", "exception")]
    assert "AssertionError: a module that is called twice" in told["failed"][0]["message"]
    assert run(arguments) == 0


def test_its_logits_depend_on_the_image(timm: ModuleType) -> None:
    network = TimmNetwork("test_vit")
    logits, head, norm = network.expected.outputs, network.model.head.weight, network.model.norm.weight
    assert np.std(logits, axis=0).mean() > 1e-2 * np.abs(logits).max()
    assert float(head.detach().std()) == pytest.approx(head.shape[1] ** -0.5, rel=0.1), "timm itself begins with 0.02"
    assert len(norm.unique()) > 1, "no vector of ones that a runtime could drop"


def test_exporting_without_its_package_names_it(
    timm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("archdsl.runtimes.timm_models.find_spec", lambda name: None)
    with pytest.raises(MeasureError, match="needs the package onnxscript"):
        TimmNetwork("test_vit").made(Target("onnxruntime"), tmp_path)


def test_a_runtime_that_computes_latencies_is_not_for_it(timm: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="null is not for networks of other libraries"):
        TimmNetwork("test_vit").made(NULL, tmp_path)


def test_timm_is_timed_beside_ours_on_both_kinds_of_runtime(
    timm: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--set", "input.size=160", "--on", "onnxruntime,torch", "--against", "timm:test_vit")
    told = bench(capsys, "micro_swin", *options)
    assert not told["failed"], told["failed"]
    assert [(row["spec"], row["target"]["runtime"]) for row in told["results"]] == [
        ("micro_swin", "onnxruntime"),
        ("timm:test_vit", "onnxruntime"),
        ("micro_swin", "torch"),
        ("timm:test_vit", "torch"),
    ]
    assert all(row["ratio_to"] == "micro_swin" and row["macs"] > 0 for row in told["results"])


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_wrong_export_is_refused_by_its_own_eager_output(timm: ModuleType, tmp_path: Path, runtime: str) -> None:
    network = TimmNetwork("test_vit")
    network.expected  # what the sound model answers  # noqa: B018
    with __import__("torch").no_grad():
        network.model.head.weight[0] += 1.0
    standing = side_by_side([network], Target(runtime), tmp_path, budget_s=0.1)[0]
    assert standing.error is not None and standing.error.problems[0].rule == "numeric-gate"
