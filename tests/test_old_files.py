"""A timing cache and a build folder that an earlier commit wrote are read and continued (see test_old_study, too)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import archdsl
from archdsl.cli.main import run
from archdsl.latency.cache.timings import TimingCache
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.target import METHOD_KEY, Target

OLD = Path(__file__).parent / "data" / "files_08bf4b6"
MACHINE = "cpu AMD EPYC family 25 model 1, 2 cores"
KEYS = {
    "onnxruntime": f"onnxruntime 1.31.1 | {MACHINE} | fp32 | batch 1 | threads 1 | archdsl 0.1.0 | method 2",
    "torch": f"torch 2.13.0+cpu | {MACHINE} | fp32 | batch 1 | threads 1 | archdsl 0.1.0 | method 2",
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the files, which a test may write to."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


@pytest.mark.parametrize("runtime", KEYS)
def test_a_timing_of_an_earlier_cache_is_found_under_todays_key(old: Path, runtime: str):
    artefact = artefact_of(archdsl.load(old / "tiny.yaml"), Target(runtime), old)
    timing = TimingCache(old).get(artefact, KEYS[runtime])
    assert timing is not None and timing.runtime == runtime and timing.median_ms > 0
    assert KEYS[runtime].endswith(f" | {METHOD_KEY}")


def test_an_earlier_cache_is_listed_and_pruned(old: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(old))
    assert run(["cache", "ls", "--json"]) == 0
    assert sorted(row["runtime"] for row in json.loads(capsys.readouterr().out)["timings"]) == ["onnxruntime", "torch"]
    assert run(["cache", "prune", "--on", "torch"]) == 0
    assert [entry.runtime for entry in TimingCache(old).entries()] == ["onnxruntime"]


def test_an_earlier_build_is_built_from(old: Path, capsys):
    assert run(["build", str(old / "build"), "-o", str(old / "again"), "--emit", "onnx"]) == 0
    then, now = (json.loads((old / name / "build.json").read_text()) for name in ("build", "again"))
    for fact in ("name", "hash", "params", "macs", "weights_sha256", "input", "output"):
        assert now[fact] == then[fact], fact


def test_an_earlier_build_is_replaced_as_ours(old: Path, capsys):
    assert run(["build", str(old / "tiny.yaml"), "-o", str(old / "build"), "--emit", "torch"]) == 0
    assert sorted(path.name for path in (old / "build").iterdir()) == ["build.json", "model.safetensors", "spec.yaml"]


def test_a_file_added_to_an_earlier_build_is_not_lost(old: Path, capsys):
    (old / "build" / "model.onnx").write_bytes(b"changed by hand")
    assert run(["build", str(old / "tiny.yaml"), "-o", str(old / "build")]) == 1
    assert (old / "build" / "model.onnx").read_bytes() == b"changed by hand"
