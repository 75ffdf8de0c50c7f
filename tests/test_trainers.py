"""Training in child processes: the same numbers as in this process, and a crash costs one network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archdsl import build, identity, load
from archdsl.errors import Place, Problem, TrainingError
from archdsl.evaluators import TrainEvaluator
from archdsl.evaluators.train_processes import Trainers, _Child
from archdsl.events import EpochEnded, Event
from archdsl.training import Recipe, parse_recipe, parse_source

DATA = {"type": "synthetic", "num_train": 128, "num_val": 64}
SMALL = {"stem.dim": 8, "stages.0.depth": 1, "stages.1.depth": 1}


def recipe(**changes: object) -> Recipe:
    return parse_recipe({"extends": "quick", "epochs": 1, **changes})


@pytest.fixture
def trainers(tmp_path: Path) -> Iterator[Trainers]:
    found = Trainers(DATA, recipe(), results=tmp_path / "trainings.jsonl", num_seeds=2)
    yield found
    found.close()


def processes(trainers: Trainers) -> list[int]:
    return [child._process.pid for child in trainers._children if child._process is not None]


def test_accuracies_are_those_of_training_in_this_process(trainers: Trainers) -> None:
    spec = load("micro_swin", set=SMALL)
    here = TrainEvaluator(
        parse_source(DATA), recipe(), build=build, identify=identity, num_seeds=2, threads=trainers.threads
    )
    found, expected = trainers(spec, seed=3), here(spec, seed=3)
    assert found.values == expected.values
    assert (found.seeds, found.data, found.num_val) == ((3, 4), "synthetic num_train=128 num_val=64", 64)


def test_finished_runs_are_not_done_again_not_even_by_another_process(trainers: Trainers) -> None:
    spec = load("micro_swin", set=SMALL)
    first = trainers(spec, seed=0)
    assert first.reused == 0
    again = Trainers(DATA, recipe(), results=trainers.results, num_seeds=3)
    try:
        more = again(spec, seed=0)
    finally:
        again.close()
    assert more.reused == 2
    assert more.values[:2] == first.values


def test_epochs_are_reported_by_seed(trainers: Trainers) -> None:
    events: list[Event] = []
    trainers.on_event = events.append
    trainers(load("micro_swin", set=SMALL), seed=5)
    assert sorted(events, key=str) == [EpochEnded(5, 1, 1), EpochEnded(6, 1, 1)]


def test_what_training_says_comes_through(tmp_path: Path) -> None:
    wrong = Trainers({**DATA, "colours": 5}, recipe(), results=tmp_path / "t.jsonl")
    try:
        with pytest.raises(TrainingError, match=r"training:1:1: .*20 classes") as caught:
            wrong(load("micro_swin", set=SMALL))
    finally:
        wrong.close()
    assert caught.value.problems[0].rule == "classes"
    assert caught.value.problems[0].hint == "set head.classes=20"


def test_a_killed_training_costs_one_network(tmp_path: Path) -> None:
    trainers = Trainers({**DATA, "num_train": 2_000}, recipe(), results=tmp_path / "t.jsonl")
    spec = load("micro_swin", set=SMALL)
    trainers(load("micro_swin_free", set=SMALL))
    (pid,) = processes(trainers)
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    try:
        with pytest.raises(TrainingError, match="was killed") as caught:
            trainers(spec)
        assert caught.value.problems[0].rule == "out-of-memory"
        assert 0 <= trainers(spec).mean <= 1, "the next one gets a new process"
    finally:
        trainers.close()


def test_when_one_seed_fails_the_others_are_not_waited_for(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def train(self: object, job: dict[str, int], report: object) -> dict[str, float]:
        if job["seed"] == 1:
            raise TrainingError(Problem(Place("training"), "diverged", "it fails"))
        assert ended.wait(20)
        raise TrainingError(Problem(Place("training"), "out-of-memory", "killed"))

    monkeypatch.setattr(_Child, "train", train)
    monkeypatch.setattr(_Child, "kill", lambda self: ended.set())
    begun = time.monotonic()
    with pytest.raises(TrainingError, match=r"it fails \[diverged\]"):
        trainers(load("micro_swin", set=SMALL), seed=0)
    assert time.monotonic() - begun < 10


def test_children_end_when_their_parent_is_killed() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_trainers import DATA, SMALL, recipe, processes; from pathlib import Path; from archdsl import load\n"
        "from archdsl.evaluators.train_processes import Trainers; import tempfile, threading\n"
        "out = Path(tempfile.mkdtemp()) / 't.jsonl'\n"
        "trainers = Trainers({**DATA, 'num_train': 20_000}, recipe(), results=out)\n"
        "threading.Timer(4.0, lambda: print(*processes(trainers), flush=True)).start()\n"
        "trainers(load('micro_swin'))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert pids
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "a training outlived its search"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
