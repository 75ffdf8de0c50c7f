"""Searching with estimated latencies: NVIDIA's compiler makes engines for a GPU that is not here; nothing is run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import archdsl
from archdsl.cli.main import run
from archdsl.errors import MeasureError, SpecError, StudyError
from archdsl.language.space.load import load_space
from archdsl.latency.engine.worker import answer
from archdsl.runs.search import search
from archdsl.runs.search_parts import SearchParts
from archdsl.runtimes.target import Target
from archdsl.study.engine_estimate import EngineEstimator
from archdsl.study.objectives import chosen

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX has wheels for Linux on x86-64 alone")

ESTIMATE = {"objectives": {"params": {}, "latency_estimate": {"runtime": "tensorrt-rtx", "gpu": "sm86"}}}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[Path, dict]:
    """A search by the command, and what it printed as JSON."""
    import contextlib
    import io

    out, text = tmp_path_factory.mktemp("search") / "run", io.StringIO()
    words = ["--objective", "params", "--objective", "latency_estimate", "--trials", "3", "--json", "--out", str(out)]
    with contextlib.redirect_stdout(text):
        assert run(["search", "quickstart", "--on", "tensorrt-rtx:sm86", *words]) == 0
    return out, json.loads(text.getvalue())


def test_a_front_of_estimates_says_so_on_its_first_page_and_trains_nothing(found):
    out, result = found
    assert result["objectives"] == ["params", "latency_estimate"] and result["networks_paid_for"] == 3
    said = "estimates for GeForce RTX 3080 (sm86), not measured and not validated"
    assert result["latency_estimate"].startswith(said)
    page = (out / "report.html").read_text()
    assert said in page and page.index(said) < page.index("non-dominated networks")
    assert not list(out.glob("**/trainings*/*"))


def test_estimates_stand_in_a_column_of_their_own_and_never_in_the_latencys(found):
    out, result = found
    rows = list(csv.DictReader((out / "front.csv").open()))
    assert rows and all(row["latency_ms"] == "" and float(row["latency_estimate_ms"]) > 0 for row in rows)
    for member in result["front"]:
        assert member["latency"] is None and member["latency_estimate_ms"] > 0
        text = (out / "front" / f"{member['name']}.yaml").read_text()
        assert "# latency_estimate " in text and "not measured and not validated" in text and "# latency 0" not in text


def test_a_resumed_study_keeps_its_gpu(found, capsys):
    out, _ = found
    words = ["--objective", "params", "--objective", "latency_estimate", "--trials", "3", "--out", str(out)]
    assert run(["search", "quickstart", "--on", "tensorrt-rtx:sm86", *words]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "latency_estimate: estimates for GeForce RTX 3080 (sm86), not measured" in told and "±" not in told
    assert run(["search", "quickstart", "--on", "tensorrt-rtx:sm89", *words]) == 1
    assert "latency_estimate" in capsys.readouterr().err


def test_a_space_may_ask_for_an_estimate_and_bound_it(tmp_path):
    bounds = {"constraints": {"latency_estimate": {"max": "1us"}}}
    result = search("quickstart", trials=1, set={**ESTIMATE, **bounds}, out=tmp_path / "run", quiet=True)
    record = next(record for record in result.records if not record.cheap)
    assert record.state == "infeasible" and record.latency_estimate > 0.001 and result.rows == ()
    assert "latency_estimate is" in record.reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--objective", "latency", "--on", "tensorrt-rtx:sm86"],
            "--objective latency_estimate --on tensorrt-rtx:sm86",
        ),
        (["--objective", "latency", "--on", "torch-cudagraph"], "--objective latency_estimate --on tensorrt-rtx:sm86"),
        (["--objective", "latency_estimate"], "needs to know the GPU"),
        (["--objective", "latency_estimate", "--on", "tensorrt-rtx:h100"], "not for NVIDIA H100 (sm90)"),
        (["--objective", "latency_estimate", "--on", "tensorrt-rtx:sm121"], "no figures of a GPU with sm121"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_latency_that_cannot_be_had_here_names_the_estimate(words, said, tmp_path, capsys):
    without = ["--set", "objectives.accuracy=null", "--out", str(tmp_path / "run")]
    assert run(["search", "quickstart", *words, *without]) == 1
    assert said in capsys.readouterr().err


def test_a_measured_latency_for_another_gpu_is_refused_in_yaml():
    latency = {"objectives": {"latency": {"runtime": "tensorrt-rtx", "gpu": "sm86"}}}
    with pytest.raises(StudyError, match="what it made is not run here"):
        SearchParts(load_space("quickstart", latency), ("latency",), None).fixed()
    with pytest.raises(SpecError, match="gpu"):
        load_space("quickstart", {"objectives": {"latency_estimate": {"runtime": "tensorrt-rtx"}}})


def test_an_estimate_is_that_of_the_engine_that_profile_reads():
    estimator = EngineEstimator(Target("tensorrt-rtx", device="cuda", precision="fp16", gpu="rtx4090"))
    try:
        assert estimator(archdsl.load("micro_swin")) == archdsl.compile_engine("micro_swin", "rtx4090").estimate_ms
    finally:
        estimator.close()


def test_a_compiler_that_dies_costs_one_network():
    estimator = EngineEstimator(
        Target("tensorrt-rtx", device="cuda", precision="fp16", gpu="sm86"), worker="dying_compiler"
    )
    with pytest.raises(MeasureError) as caught:
        estimator(archdsl.load("micro_swin"))
    assert caught.value.problems[0].rule == "crash"
    estimator.close()


def test_what_the_compilers_process_refuses_comes_back_as_an_error(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    reply = answer({"path": str(tmp_path / "x.onnx"), "gpu": "sm86", "batch": 1})
    assert (reply["kind"], reply["rule"]) == ("failure", "cannot-read")
    assert answer({"path": None, "gpu": "sm86", "batch": 1})["kind"] == "failure"


def test_an_estimate_needs_no_training_unless_it_is_asked_for():
    def names(*asked: str) -> list[str]:
        return [objective.name for objective in chosen(asked, ("accuracy", "latency_estimate"))]

    assert names("params", "latency_estimate") == ["params", "latency_estimate"]
    assert names("accuracy", "latency_estimate") == ["accuracy", "latency_estimate"]
    assert names() == ["accuracy", "latency_estimate"]
    assert names("params") == ["accuracy", "params"]
