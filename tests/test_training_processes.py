"""Several processes that train together end together, know what each of them knows, and go on from one checkpoint."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_image_folder import write_images

TOGETHER = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
import torch
torch.set_num_threads(1)
from contextlib import ExitStack
from pathlib import Path
from torch import nn
from toy_training import changed
from archdsl import load
from archdsl.errors import ArchError, Place, Problem, TrainingError
from archdsl.training import parse_recipe, parse_source, train
from archdsl.training.processes import joined
from archdsl.training.run import TrainConfig, _train

out, told = Path(sys.argv[2]), {}

def problem(text):
    return TrainingError(Problem(Place("here"), "x", text))

def outcome_of(work):
    try:
        work()
    except ArchError as error:
        return type(error).__name__, error.problems[0].rule, error.problems[0].message
    return "fine", "", ""

def only_the_first():
    with processes.all_or_none("cpu"):
        if processes.first:
            raise problem("it failed there")

def only_the_second():
    with processes.all_or_none("cpu"):
        if not processes.first:
            raise problem("it failed there")

def alike():
    with processes.all_or_none("cpu"):
        raise problem("it fails everywhere")

def images(path):
    data = parse_source({"type": "imagefolder", "path": path, "workers": 0}).open((8, 8))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    return train(model, data, changed(batch=6, epochs=1), seed=0, processes=processes)

def run_in(folder, *, num_train=64, resume=False):
    spec = load("micro_swin", set={"stem.dim": 8, "stages.*.depth": 1})
    source = parse_source({"type": "synthetic", "num_train": num_train, "num_val": 32})
    plan = TrainConfig(spec, source, parse_recipe({"extends": "quick", "epochs": 1}), folder, device="cpu", threads=1)
    with ExitStack() as stack:
        _train(plan, stack, processes, "cpu", resume=resume, report=None, say=None, whole=ExitStack)

with joined("cpu") as processes:
    rank = processes.rank
    told["each"] = processes.each({rank: "x" * (rank + 1)}, "cpu")
    told["only the first"] = outcome_of(only_the_first)
    told["only the second"] = outcome_of(only_the_second)
    told["alike"] = outcome_of(alike)
    told["corrupt"] = (lambda o: [o.num_val, o.num_val_independent, list(o.notes)])(images(sys.argv[3]))
    told["too many"] = outcome_of(lambda: run_in(out / "wrong", num_train=1_000_000))
    run_in(out / "shared")
    torch.distributed.barrier()
    own = out / ("shared" if processes.first else "elsewhere")
    told["not shared"] = outcome_of(lambda: run_in(own, resume=True))
    told["shared"] = outcome_of(lambda: run_in(out / "shared", resume=True))

def leave():
    with joined("cpu") as processes:
        if not processes.first:
            torch.distributed.barrier()

os.environ["MASTER_PORT"] = sys.argv[4]
told["left alone"] = outcome_of(leave)
(out / f"{rank}.json").write_text(json.dumps(told))
"""


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes was told."""
    out = tmp_path_factory.mktemp("together")
    root = write_images(out / "images", train=6, val=4)
    for name in ("train/zebra/0.jpg", "val/zebra/0.jpg", "val/zebra/1.jpg", "val/zebra/2.jpg"):
        (root / name).write_bytes(b"nothing")
    path = json.dumps([str(Path(__file__).parent), *sys.path])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    port = free_port()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, path, str(out), str(root), port],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=200)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def test_each_process_gets_what_each_gave(told: list[dict[str, Any]]) -> None:
    assert told[0]["each"] == told[1]["each"] == [{"0": "x"}, {"1": "xx"}]


def test_what_fails_in_one_process_ends_all_and_only_that_one_tells_it(told: list[dict[str, Any]]) -> None:
    failed, elsewhere = (["TrainingError", "x", "it failed there"], ["Elsewhere", "x", "it failed there"])
    assert [each["only the first"] for each in told] == [failed, elsewhere]
    assert [each["only the second"] for each in told] == [elsewhere, failed]
    assert [each["alike"][0] for each in told] == ["TrainingError", "Elsewhere"], "what all of them say is said once"
    assert [each["too many"][:2] for each in told] == [["TrainingError", "out-of-range"], ["Elsewhere", "out-of-range"]]


def test_files_that_another_process_could_not_decode_are_told_and_not_counted(told: list[dict[str, Any]]) -> None:
    assert told[0]["corrupt"] == told[1]["corrupt"]
    num_val, independent, notes = told[0]["corrupt"]
    assert num_val == independent == 9
    assert any(note.startswith("4 files could not be decoded") for note in notes)


def test_processes_that_do_not_see_one_checkpoint_do_not_go_on(told: list[dict[str, Any]]) -> None:
    assert [each["not shared"][1] for each in told] == ["resume", "resume"]
    assert told[0]["not shared"][2].startswith("not all processes see the same checkpoint in ")
    assert told[0]["not shared"][2].endswith("finished epochs that each found: 1, 0")
    assert [each["shared"] for each in told] == [["fine", "", ""]] * 2


def test_a_process_that_is_left_alone_says_so(told: list[dict[str, Any]]) -> None:
    assert [each["left alone"][1] for each in told] == ["", "worker-lost"]
