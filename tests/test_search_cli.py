"""`archdsl search` from the outside: a tiny real search, and what the command says when it cannot."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from archdsl.cli.main import run
from archdsl.cli.parameters import Seconds
from archdsl.errors import ArchError
from archdsl.language import load_space, shipped_spaces
from archdsl.runs.search import search
from archdsl.runs.search_parts import SearchParts
from archdsl.study.proposals.samplers import settled

TINY = """
name: tiny
base: micro_swin_free
choices:
  stages.0.depth: [1, 2]
  stages.1.window: [2, 4]
  defaults: [{norm: layer, act: gelu}, {norm: batch, act: relu}]
objectives:
  accuracy:
    train:
      data: {type: synthetic, num_train: 128, num_val: 64}
      recipe: {extends: quick, epochs: 1, batch: 32}
      seeds: 2
  latency: {runtime: onnxruntime}
search: {trials: 3, seed: 0, start: [micro_swin_free]}
"""


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_a_real_search_ends_with_a_front_that_checks_and_builds(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["search", str(space), "--objective", "latency", "--out", str(out)]
    assert run(arguments) == 0
    printed = capsys.readouterr()
    assert "tiny: the front" in printed.out
    assert "onnxruntime" in printed.out
    assert "all trials are done: 3 networks evaluated" in printed.err
    assert "evaluator: train: real training, the reference itself" in printed.out
    assert "train: real training, the reference itself" in (out / "report.html").read_text()

    rows = list(csv.DictReader((out / "front.csv").open()))
    specs = sorted((out / "front").glob("*.yaml"))
    assert len(rows) == len(specs) >= 1
    assert (out / "front.svg").is_file()
    for row in rows:
        assert 0 <= float(row["accuracy"]) <= 1
        assert float(row["latency_low_ms"]) <= float(row["latency_ms"]) <= float(row["latency_high_ms"])
        assert row["accuracy_seeds"] == "2"
    for spec in specs:
        assert run(["check", str(spec)]) == 0
        assert run(["build", str(spec)]) == 0
    capsys.readouterr()

    before = {path: path.read_bytes() for path in [out / "front.csv", *specs]}
    begun = time.monotonic()
    assert run([*arguments, "--json"]) == 0, "the same command again"
    assert time.monotonic() - begun < 10, "it pays for nothing"
    result = json.loads(capsys.readouterr().out)
    assert result["networks_paid_for"] == 3
    assert result["objectives"] == ["accuracy", "latency"]
    assert [row["name"] for row in result["front"]] == [row["name"] for row in rows]
    assert result["front"][0]["accuracy"]["data"] == "synthetic num_train=128 num_val=64"
    assert {path: path.read_bytes() for path in before} == before

    assert run([*arguments, "--seed", "1"]) == 1
    assert "seed: 0 -> 1" in capsys.readouterr().err
    assert run([*arguments, "--set", "objectives.accuracy.train.recipe.lr=1"]) == 1
    assert "accuracy.recipe.lr: 0.004 -> 1.0" in capsys.readouterr().err


def null_search(space: Path, out: Path, **more: Any) -> Any:
    """A search without accuracy: parameters against made-up latency; milliseconds a network."""
    objectives = {"set": {"objectives": {"latency": {"runtime": "null"}, "params": {}}}}
    return search(space, out=out, **{**objectives, **more})


def test_objectives_without_accuracy_train_nothing(space: Path, tmp_path: Path) -> None:
    result = null_search(space, tmp_path / "run", trials=6)
    assert [objective.name for objective in result.objectives] == ["latency", "params"]
    assert all(record.accuracy is None for record in result.records)
    assert not (tmp_path / "run/trainings.jsonl").exists()
    assert len(result.rows) >= 1


def test_fresh_sets_the_old_study_aside(space: Path, tmp_path: Path) -> None:
    null_search(space, tmp_path / "run", trials=2)
    with pytest.raises(ArchError, match="seed: 0 -> 1"):
        null_search(space, tmp_path / "run", trials=2, seed=1)
    assert null_search(space, tmp_path / "run", trials=2, seed=1, fresh=True).reason == "trials"
    assert (tmp_path / "run/study.journal.1").is_file()


def test_a_database_holds_the_study_and_fresh_forgets_it(space: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    first = null_search(space, tmp_path / "run", trials=3, storage=url)
    assert first.storage == url
    assert not (tmp_path / "run/study.journal").exists()
    assert len(null_search(space, tmp_path / "run", trials=3, storage=url).records) == len(first.records)
    null_search(space, tmp_path / "run", trials=3, storage=url, seed=5, fresh=True)


def test_optuna_reads_the_study(space: Path, tmp_path: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    result = null_search(space, tmp_path / "run", trials=3)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "run/study.journal")))
    study = optuna.load_study(study_name="tiny", storage=storage)
    best = {trial.user_attrs["archdsl:hash"] for trial in study.best_trials}
    assert best == {row.record.hash for row in result.rows}


def test_a_space_that_is_seen_through_ends_early(space: Path, tmp_path: Path) -> None:
    result = null_search(space, tmp_path / "run", trials=1000)
    assert result.reason == "exhausted"
    assert len({record.hash for record in result.records}) == 8


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "no space called `nonsense`"),
        (["--objective", "speed"], "there is no objective `speed`"),
        (["--set", "search.sampler=tpee"], "there is no sampler `tpee`"),
        (["--set", "objectives.latency.runtime=tensorrt"], "--on onnxruntime"),
        (["--on", "tensorrrt"], "a runtime is one of"),
        (["--time-limit", "soon"], "--time-limit is a time"),
        (["--set", "objectives.accuracy.train.data=imagefolder:/nowhere"], "no folder `/nowhere/train`"),
        (["--set", "objectives.accuracy.train.recipe=quik"], "no recipe called `quik`"),
        (["--set", "objectives.accuracy.train.data=synthetik"], "there is no data source `synthetik`"),
        (["--recipe", "quik"], "--recipe:1:1: no recipe called `quik` ships with archdsl"),
        (["--storage", "nonsense://me:s3cret@host/x"], "nonsense://me:***@host/x"),
    ],
)
def test_wrong_input_is_told_before_anything_is_paid(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    words = arguments if arguments == ["nonsense"] else [str(space), *arguments]
    assert run(["search", *words, "--out", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert told in err
    assert "Traceback" not in err
    assert "s3cret" not in err


def test_a_network_for_other_images_than_the_data_is_refused_before_anything_is_paid(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grey.yaml").write_text("name: grey\nextends: micro_swin_free\ninput: {channels: 5}\n")
    space.write_text(TINY.replace("base: micro_swin_free", "base: grey.yaml").replace(", start: [micro_swin_free]", ""))
    assert run(["search", str(space), "--data", f"imagefolder:{tmp_path}", "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert "takes images of 5 channels, but pictures have 1, 2, 3, 4 [channels]" in told and f"{space}:3:7" in told
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_ours_is_refused(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", str(space), "--out", str(tmp_path)]) == 1
    assert "did not write" in capsys.readouterr().err


def test_ctrl_c_writes_the_report_and_the_same_command_goes_on(space: Path, tmp_path: Path) -> None:
    """A real search in a process group of its own, interrupted in its second training, leaves no process behind."""
    command = [sys.executable, "-m", "archdsl", "search", str(space), "--out", str(tmp_path / "run"), "--trials", "2"]
    slow = [*command, "--set", "objectives.accuracy.train.data.num_train=512", "--no-confirm"]
    child = subprocess.Popen(slow, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("[1/2]"):
            break
    helpers = children_of(child.pid)
    assert helpers
    os.killpg(child.pid, signal.SIGINT)
    begun = time.monotonic()
    out, err = child.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert child.returncode == 130, err
    assert "interrupted" in err
    assert "tiny: the front, 1 network " in out
    assert (tmp_path / "run/front.csv").is_file()
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() and not zombie(pid) for pid in helpers))
    again = subprocess.run(slow, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "going on after 1 trials" in again.stderr


def children_of(pid: int) -> list[int]:
    """The processes that any thread of this one has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for found in lists for word in found.read_text().split()]


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(holds: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "epochs"), [([], 5), (["--epochs", "3"], 3), (["--set", "objectives.accuracy.train.epochs=4"], 4)]
)
def test_a_recipe_that_is_asked_for_brings_its_own_epochs(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], epochs: int
) -> None:
    space.write_text(TINY.replace("recipe: {extends: quick, epochs: 1, batch: 32}", "recipe: quick\n      epochs: 7"))
    (tmp_path / "five.yaml").write_text("extends: quick\nepochs: 5\n")
    asked: list[str] = []

    def stop(space: str, **options: Any) -> None:
        asked.extend(options["set"])
        raise KeyboardInterrupt

    monkeypatch.setattr("archdsl.runs.search.search", stop)
    assert run(["search", str(space), "--recipe", str(tmp_path / "five.yaml"), *arguments]) == 130
    recipe = SearchParts(load_space(space, asked), [], None).recipe
    assert recipe is not None and recipe.epochs == epochs


def test_times_are_read() -> None:
    assert [Seconds().read("--time-limit", text) for text in ("90", "90s", "5m", "5min", "2h", "500 ms")] == [
        90,
        90,
        300,
        300,
        7200,
        0.5,
    ]


def test_shipped_spaces_name_what_there_is() -> None:
    names = [path.stem for path in shipped_spaces()]
    assert {"quickstart", "swin_free_imagenet"} <= set(names)
    for name in names:
        space = load_space(name)
        assert settled(space.search.sampler, space.search.trials)
        assert space.start
        assert space.objectives.names == ("accuracy", "latency")


def test_the_quickstart_searches_what_it_promises() -> None:
    paths = " ".join(choice.path for choice in load_space("quickstart").choices)
    assert all(word in paths for word in ("window", "shift", "depth", "defaults"))
    assert {option for choice in load_space("quickstart").choices for option in choice.labels} >= {
        "{norm: layer, act: gelu}",
        "{norm: batch, act: relu}",
    }
