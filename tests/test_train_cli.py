"""`archdsl train` from the outside."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archdsl import build, identity, load
from archdsl.cli.main import run
from archdsl.evaluators import TrainEvaluator
from archdsl.training import Training, parse_recipe, parse_source
from archdsl.training.checkpoint import read_checkpoint
from archdsl.weights.reading import read_weights

DATA = "{type: synthetic, num_train: 128, num_val: 64}"
TINY = ["--data", DATA, "--set", "stem.dim=8", "--set", "stages.*.depth=1", "--epochs", "2", "--threads", "1"]


def trained(out: Path, *more: str) -> int:
    return run(["train", "micro_swin", *TINY, "--out", str(out), *more])


def test_a_network_is_trained_and_its_folder_can_be_built(tmp_path, capsys):
    out = tmp_path / "run"
    assert trained(out) == 0
    printed = capsys.readouterr()
    assert "micro_swin: top-1 accuracy 0." in printed.out and "(1 seed, synthetic num_train=128" in printed.out
    assert [line[:14] for line in printed.err.splitlines()] == ["epoch 1 of 2: ", "epoch 2 of 2: "]
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    told = json.loads((out / "train.json").read_text())
    assert told["state"] == "finished" and told["hash"] == identity(load(out / "spec.yaml"))
    assert told["accuracy"]["mean"] == float(rows[-1]["val_accuracy"])
    assert told["made_with"]["torch"] == torch.__version__
    assert run(["build", str(out)]) == 0
    assert "model.safetensors" in capsys.readouterr().out


def test_the_weights_in_the_folder_have_the_accuracy_that_is_told(tmp_path, capsys):
    out = tmp_path / "run"
    assert trained(out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    model = build(load(out / "spec.yaml"), read_weights(out / "model.safetensors")).eval()
    data = parse_source({"type": "synthetic", "num_train": 128, "num_val": 64}).open((32, 32))
    images, labels = next(data.val_batches(64))
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).double().mean().item() == told["accuracy"]["mean"]


def test_the_command_comes_to_what_the_evaluator_of_a_search_comes_to(tmp_path, capsys):
    assert trained(tmp_path / "run", "--json", "--seed", "3") == 0
    told = json.loads(capsys.readouterr().out)
    source = parse_source({"type": "synthetic", "num_train": 128, "num_val": 64})
    evaluator = TrainEvaluator(source, parse_recipe("quick"), build=build, identify=identity)
    spec = load("micro_swin", set={"stem.dim": 8, "stages.*.depth": 1})
    assert evaluator(spec, seed=3).mean == told["accuracy"]["mean"]


def test_a_folder_with_a_training_is_gone_on_with_only_when_asked_and_only_the_same(tmp_path, capsys):
    out = tmp_path / "run"
    assert trained(out) == 0
    before = (out / "model.safetensors").read_bytes()
    assert trained(out) == 1
    assert "this training was begun before [output-folder]" in capsys.readouterr().err
    assert trained(out, "--resume", "--lr", "0.1") == 1
    assert "it differs in recipe [resume]" in capsys.readouterr().err
    assert trained(out, "--resume", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["resumed_after"] == 2 and told["accuracy"]["paid_epochs"] == 0
    assert (out / "model.safetensors").read_bytes() == before
    assert trained(tmp_path / "nowhere", "--resume") == 1
    assert "no training in" in capsys.readouterr().err and not (tmp_path / "nowhere").exists()


def test_a_mistake_does_not_take_the_folder(tmp_path, capsys):
    out = tmp_path / "run"
    assert trained(out, "--set", "head.classes=3") == 1
    assert trained(out) == 0, "what came to nothing gives way"
    capsys.readouterr()
    assert trained(out, "--set", "head.classes=13") == 1
    assert "another training: it differs in the network [output-folder]" in capsys.readouterr().err


def test_a_folder_in_which_another_process_trains_is_left_to_it(tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    out = tmp_path / "run"
    out.mkdir()
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert trained(out) == 1
        assert "another process is training in" in capsys.readouterr().err
    finally:
        os.close(descriptor)
    assert trained(out) == 0


def test_a_finished_training_is_told_the_same_again(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 3)):
        for name in "ab":
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{index}.png")
    (tmp_path / "images/train/a/0.png").write_bytes(b"nothing")
    (tmp_path / "images/val/a/0.png").write_bytes(b"nothing")
    arguments = ["--data", str(tmp_path / "images"), "--workers", "0", "--recipe", "quick"]
    out, told = tmp_path / "run", []
    for more in ([], ["--resume"]):
        assert trained(out, *arguments, *more) == 0
        told.append(json.loads((out / "train.json").read_text()))
    assert told[0]["accuracy"]["num_val"] == 5
    changing = {"paid_epochs"}
    first, again = ({k: v for k, v in each["accuracy"].items() if k not in changing} for each in told)
    assert first == again and told[0]["notes"] == told[1]["notes"] != []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert trained(tmp_path) == 1
    assert "holds files that archdsl did not write" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "imagefoldr:/x"], "did you mean `imagefolder`"),
        (["--data", "/nowhere"], "no folder `/nowhere/train`"),
        (["--data", "{type: synthetic, num_tran: 3}"], "did you mean `num_train`"),
        (["--recipe", "swn"], "did you mean `swin`"),
        (["--recipe", "swin"], "use the recipe `quick`"),
        (["--epochs", "0"], "`epochs` must be at least 1, but got `0`"),
        (["--lr", "-1"], "`lr` must be more than 0"),
        (["--device", "gpu"], "a device is auto, cpu, cuda or cuda:N, but got 'gpu'"),
        (["--workers", "2"], "nothing for --workers to do"),
        (["--set", "head.classes=3"], "set head.classes=12"),
        (
            ["--set", "input.channels=5", "--data", "imagefolder:/nowhere"],
            "takes images of 5 channels, but pictures have 1, 2, 3, 4 [channels]",
        ),
    ],
)
def test_what_is_wrong_is_said_with_a_way_out_and_exit_code_1(tmp_path, capsys, more, message):
    assert trained(tmp_path / "run", *more) == 1
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tmp_path, capsys):
    assert trained(tmp_path / "run", "--device", "cuda") == 1
    assert "sees no NVIDIA GPU here [no-device]" in capsys.readouterr().err


def test_a_recipe_of_ones_own_with_an_average_of_the_weights_and_half_precision(timm, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: quick\nema_decay: 0.9\ndrop_path: 0.1\namp: bf16\n")
    assert trained(tmp_path / "run", "--recipe", str(path), "--micro-batch", "16") == 0
    assert "recipe mine" in capsys.readouterr().out


def test_events_for_tensorboard_hold_the_numbers_of_the_epochs(tmp_path, capsys):
    out = tmp_path / "run"
    assert trained(out, "--log", "tensorboard") == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "events"))
    events.Reload()
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    found = [event.value for event in events.Scalars("val_accuracy")]
    assert found == pytest.approx([float(row["val_accuracy"]) for row in rows])


def test_without_tensorboard_the_way_to_get_it_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert trained(tmp_path / "run", "--log", "tensorboard") == 1
    assert "pip install 'archdsl[tensorboard]'" in capsys.readouterr().err


def test_corrupt_files_are_told_at_the_end(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in "ab":
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{index}.jpg")
    (tmp_path / "images/train/a/0.jpg").write_bytes(b"nothing")
    arguments = ["--data", str(tmp_path / "images"), "--workers", "0", "--recipe", "quick"]
    assert trained(tmp_path / "run", *arguments) == 0
    told = capsys.readouterr().err
    assert "note: a batch is 8 images, not 32: there are only 8 to train on" in told
    assert told.rstrip().endswith(
        "could not be decoded as an image and was skipped: " + str(tmp_path / "images/train/a/0.jpg")
    )


def test_torchrun_starts_two_processes_of_which_one_writes(tmp_path):
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "archdsl", "train", "micro_swin", *TINY, "--out", str(out), "--json"]
    found = subprocess.run(
        [*torchrun, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["processes"] == 2 and told["accuracy"]["num_val"] == 64
    assert found.stderr.count("epoch 2 of 2") == 1
    assert (out / "model.safetensors").is_file()


def test_of_several_processes_one_says_what_is_wrong(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "archdsl", "train", "micro_swin", *TINY, "--out", str(tmp_path / "run"), "--resume"]
    found = subprocess.run(
        [*torchrun, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode != 0
    assert found.stderr.count("there is no training in") == 1
    assert "this is a bug" not in found.stderr and "gloo" not in found.stderr


# A run that commit 08bf4b6 began and that was cut in its third epoch, by `train_in_folder` there with
#   spec: load("micro_swin", set={"stem.dim": 8, "stages.*.depth": 1}); seed: 7; device: cpu; threads: 1
#   source: parse_source({"type": "synthetic", "num_train": 128, "num_val": 64})
#   recipe: parse_recipe("quick", epochs=3)
EARLIER = Path(__file__).parent / "data" / "training_run"


def test_a_run_that_an_earlier_version_began_is_resumed(tmp_path, capsys):
    out, uncut = tmp_path / "run", tmp_path / "uncut"
    shutil.copytree(EARLIER, out)
    more = ("--epochs", "3", "--seed", "7", "--device", "cpu")
    assert trained(out, *more, "--resume") == 0
    assert [line[:12] for line in capsys.readouterr().err.splitlines()] == ["epoch 3 of 3"]
    assert trained(uncut, *more) == 0
    began = (EARLIER / "metrics.csv").read_text()
    assert (out / "metrics.csv").read_text().startswith(began)
    assert len({identity(load(folder / "spec.yaml")) for folder in (out, uncut, EARLIER)}) == 1
    told, expected = (json.loads((folder / "train.json").read_text()) for folder in (out, uncut))
    assert told["resumed_after"] == 2 and told.keys() == expected.keys()
    kept = json.loads((EARLIER / "train.json").read_text())
    assert all(told[name] == kept[name] == expected[name] for name in kept if name != "state")
    for one, other in zip(told["history"], expected["history"], strict=True):  # another CPU rounds sums otherwise
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["lr"] == other["lr"]
    spec, images = load(out / "spec.yaml"), torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, other = (build(spec, read_weights(folder / "model.safetensors")).eval() for folder in (out, uncut))
    with torch.no_grad():  # not the weights: a key's bias has no effect, and AdamW makes steps of its rounding
        torch.testing.assert_close(one(images), other(images), rtol=1e-2, atol=1e-2)


def test_a_state_has_the_fields_that_an_earlier_version_wrote():
    network = load(EARLIER / "spec.yaml")
    data = parse_source({"type": "synthetic", "num_train": 128, "num_val": 64}).open((32, 32))
    training = Training(build(network, seed=7), data, parse_recipe("quick", epochs=3), seed=7)
    kept = read_checkpoint(EARLIER / "checkpoint.safetensors")
    training.resume(kept)
    state = training.state()
    assert list(state) == list(kept)
    for name in set(kept) - {"model", "optimizer", "random"}:
        assert state[name] == kept[name], name
    assert torch.equal(state["random"], kept["random"])
    assert all(torch.equal(state["model"][name], kept["model"][name]) for name in kept["model"])
