"""Runs that are cut, short of memory, in half precision or in several processes come to what a plain run comes to."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_training import TOY, Bright, changed, same, toy_network, weights

from archdsl.errors import TrainingError
from archdsl.training import Training, train
from archdsl.training.checkpoint import read_checkpoint, write_checkpoint
from archdsl.training.memory import free_memory_bytes, images_that_fit, is_out_of_memory
from archdsl.training.optimizers import make_optimizer
from archdsl.training.processes import Processes, in_environment, share_of
from archdsl.training.recipe import lr_factor


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the plain loop ---------------------------------------------------------------------------------------------------


def test_without_extras_the_loop_is_the_textbook_loop_bit_by_bit():
    """AdamW, cross entropy, clipping, one schedule: nothing that recipes can add shows when it is not asked for."""
    model = toy_network()
    train(model, Bright(), TOY, seed=3)

    plain = toy_network()
    optimizer = make_optimizer(plain, TOY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for step in range(40):
            if step % 10 == 0:
                batches = Bright().train_batches(32, seed=3, epoch=step // 10)
            images, labels = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = TOY.lr * lr_factor(step, 40, TOY)
            plain.train()
            loss = F.cross_entropy(plain(images), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
    assert same(weights(model), weights(plain))


# --- going on ---------------------------------------------------------------------------------------------------------


RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "average": {"ema_decay": 0.9, "ema_warmup": True},
    "mixed": {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1},
    "bf16": {"amp": "bf16"},
    "fp16, with its scaler": {"amp": "fp16"},
    **{name: {"optimizer": name, "lr": 1e-3} for name in ("nadamw", "adan", "lamb", "lion", "sgd")},
}


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("fields", RECIPES.values(), ids=RECIPES)
def test_a_run_that_goes_on_from_a_file_has_the_weights_of_one_that_was_not_cut(timm, tmp_path, fields, cut):
    recipe = changed(**fields)
    whole = toy_network()
    expected = train(whole, Bright(), recipe, seed=5)

    path = tmp_path / "checkpoint.safetensors"
    train(toy_network(), Bright(), recipe, seed=5, to_epoch=cut, checkpoint=lambda state: write_checkpoint(path, state))
    torch.manual_seed(cut)  # whatever happened to torch's random numbers in between
    again = toy_network(seed=9)  # first weights do not matter: they come from the state
    outcome = train(again, Bright(), recipe, seed=5, resume=read_checkpoint(path))
    assert same(weights(whole), weights(again))
    assert [(e.train_loss, e.val_accuracy, e.lr) for e in outcome.history] == [
        (e.train_loss, e.val_accuracy, e.lr) for e in expected.history
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, "missing") for field in ("run", "model", "optimizer", "random", "micro_batch", "history", "notes")),
        *((field, 7) for field in ("run", "model", "optimizer", "random", "history", "notes")),
    ],
)
def test_a_state_whose_fields_are_gone_or_nonsense_is_damaged(field, value):
    first, again = (Training(toy_network(), Bright(), changed(), seed=0) for _ in range(2))
    first.run_epoch()
    state = dict(first.state())
    if value == "missing":
        del state[field]
    else:
        state[field] = value
    with pytest.raises(TrainingError) as caught:
        again.resume(state)
    assert caught.value.problems[0].rule == ("resume" if (field, value) == ("run", 7) else "damaged")


def test_the_scale_of_the_loss_in_fp16_is_gone_on_with():
    first, again = (Training(toy_network(), Bright(), changed(amp="fp16"), seed=0) for _ in range(2))
    assert first.precision.scaler is not None and again.precision.scaler is not None
    first.run_epoch()
    first.precision.scaler.update(512.0)
    again.resume(first.state())
    assert again.precision.scaler.get_scale() == 512.0


def test_a_run_cut_in_the_middle_of_an_epoch_is_taken_up_at_its_beginning(tmp_path):
    whole = toy_network()
    train(whole, Bright(), TOY, seed=5)

    class Cut(Exception):
        pass

    class CutShort(Bright):
        def train_batches(self, batch: int, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            for number, images in enumerate(super().train_batches(batch, **options)):
                if options["epoch"] == 2 and number == 6:
                    raise Cut
                yield images

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Cut):
        train(toy_network(), CutShort(), TOY, seed=5, checkpoint=lambda state: write_checkpoint(path, state))
    again = toy_network()
    train(again, Bright(), TOY, seed=5, resume=read_checkpoint(path))
    assert same(weights(whole), weights(again))


def test_an_early_rung_is_a_point_of_the_whole_schedule(tmp_path):
    whole, rung = toy_network(), toy_network()
    expected = train(whole, Bright(), TOY, seed=5)
    early = train(rung, Bright(), TOY, seed=5, to_epoch=2)
    assert early.epochs == 2 and early.stopped_early
    assert early.accuracy == expected.history[1].val_accuracy
    assert early.history[1].lr == expected.history[1].lr > 1e-4, "it has not fallen to the end of the schedule"


def test_a_checkpoint_that_is_damaged_anywhere_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    training = Training(toy_network(), Bright(), TOY, seed=0)
    training.run_epoch()
    write_checkpoint(path, training.state())
    sound = path.read_bytes()
    assert read_checkpoint(path)["run"] == training.state()["run"]
    assert b"pickle" not in sound and not sound.startswith((b"PK", b"\x80"))
    refused: set[str] = set()
    for place in [5, *range(1000, len(sound), len(sound) // 23)]:
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        try:
            found = read_checkpoint(path)
        except TrainingError as error:
            refused.add(error.problems[0].rule)
        else:  # a bit of the JSON, such as a digit of the seconds: all numbers of the network are checked
            assert same(found["model"], training.state()["model"])
    assert refused == {"damaged"}
    path.write_bytes(sound[:-9])
    with pytest.raises(TrainingError, match=r"no checkpoint that can be read(.|\n)*train from the start"):
        read_checkpoint(path)
    with pytest.raises(TrainingError, match=r"there is no .*nowhere \[missing-file\]"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_state_of_another_network_or_recipe_is_refused(tmp_path):
    state = Training(toy_network(), Bright(), TOY, seed=5).state()
    with pytest.raises(TrainingError, match=r"of another run: .*batch=32.*not .*batch=16"):
        train(toy_network(), Bright(), changed(batch=16), seed=5, resume=state)
    with pytest.raises(TrainingError, match=r"of another network: .*\[resume\]"):
        train(toy_network(classes=4), Bright(), TOY, seed=5, resume=state)


# --- memory -----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A network on a machine that holds `room` images at once in training, and `room_judging` in validation."""

    def __init__(self, model: nn.Module, room: int, room_judging: int = 10**6):
        super().__init__()
        self.model, self.room, self.room_judging = model, room, room_judging

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(x)  # random numbers and statistics are used up by the time memory is short
        if len(x) > (self.room if self.training else self.room_judging):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return y


def test_where_memory_is_short_fewer_images_go_through_at_once_and_steps_stay_as_large():
    said: list[str] = []
    plain, small = toy_network(dropout=0, norm=False), Small(toy_network(dropout=0, norm=False), room=9)
    expected = train(plain, Bright(), TOY, seed=1)
    outcome = train(small, Bright(), TOY, seed=1, say=said.append)
    assert said == [
        "32 images at once did not fit in memory: now 16; a step is as large as ever",
        "16 images at once did not fit in memory: now 8; a step is as large as ever",
    ]
    assert outcome.notes == tuple(said)
    for one, other in zip(plain.state_dict().values(), small.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert outcome.accuracy == pytest.approx(expected.accuracy, abs=0.02)


def test_what_did_not_fit_leaves_no_trace_in_random_numbers_and_statistics():
    straight, found = toy_network(), toy_network()
    train(straight, Bright(), TOY, seed=1, micro_batch=8)
    train(Small(found, room=8), Bright(), TOY, seed=1)
    assert same(weights(straight), weights(found))


def test_an_image_that_does_not_fit_alone_is_a_failure_with_a_reason():
    with pytest.raises(TrainingError, match=r"a single image of 4x4 px does not fit in memory \[out-of-memory\]"):
        train(Small(toy_network(), room=0), Bright(), TOY, seed=1)


def test_validation_is_done_in_halves_where_memory_is_short():
    expected = train(toy_network(), Bright(), TOY, seed=1)
    found = train(Small(toy_network(), room=32, room_judging=13), Bright(), TOY, seed=1)
    assert found.accuracy == expected.accuracy


def test_an_error_that_is_not_about_memory_passes_through():
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(Broken(48, 3), Bright(), TOY, seed=0)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried …")) and is_out_of_memory(
        MemoryError()
    )
    assert not is_out_of_memory(ValueError("out of memory"))


def test_on_a_cpu_the_micro_batch_is_what_fits_in_half_of_the_free_memory():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 1000), nn.GELU(), nn.Linear(1000, 3))
    kept_an_image = 4 * (48 + 1000 + 1000)  # what linear, GELU and linear keep: their inputs, 4 bytes a number
    image = torch.zeros(3, 4, 4)
    assert images_that_fit(model, image, 64, free_bytes=2 * 64 * kept_an_image) == 64
    assert images_that_fit(model, image, 64, free_bytes=2 * 63 * kept_an_image) == 32
    assert images_that_fit(model, image, 64, free_bytes=1) == 1
    free = free_memory_bytes()
    assert free is None or 2**20 < free < 2**50


class Pooled(nn.Module):
    """A batch norm that sees one position an image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(x.mean((2, 3))))
        return y


def test_micro_batches_are_alike_so_a_batch_norm_after_pooling_gets_no_single_image():
    assert train(Pooled(), Bright(), changed(epochs=1), seed=0, micro_batch=31).epochs == 1


def test_a_batch_norm_after_pooling_that_gets_a_single_image_is_told(monkeypatch):
    with pytest.raises(TrainingError, match=r"batch norm over single positions(.|\n)*\[batch\](.|\n)*--micro-batch"):
        train(Pooled(), Bright(), changed(epochs=1), seed=0, micro_batch=1)
    monkeypatch.setattr("archdsl.training.micro_batches.PROBE_FROM_PIXELS", 1)
    assert train(Pooled(), Bright(), changed(epochs=1), seed=0).epochs == 1, "measuring takes more than one image"


def test_another_micro_batch_may_be_asked_for_when_going_on():
    first = Training(toy_network(), Bright(), TOY, seed=0, micro_batch=16)
    first.run_epoch()
    first.micro_batches.size = 8  # as memory had it
    state = first.state()
    found = {}
    for asked in (None, 16, 4):
        again = Training(toy_network(), Bright(), TOY, seed=0, micro_batch=asked)
        again.resume(state)
        found[asked] = again.micro_batches.size
    assert found == {None: 8, 16: 8, 4: 4}


def test_a_large_batch_is_measured_before_a_cpu_is_given_it(monkeypatch):
    monkeypatch.setattr("archdsl.training.micro_batches.PROBE_FROM_PIXELS", 1)
    monkeypatch.setattr("archdsl.training.memory.free_memory_bytes", lambda: 1)
    said: list[str] = []
    probed, straight = toy_network(), toy_network()
    train(probed, Bright(), TOY, seed=1, say=said.append)
    assert said == ["1 images at once and not 32, so that they fit in memory; a step is as large as ever"]
    train(straight, Bright(), TOY, seed=1, micro_batch=1)
    assert same(weights(probed), weights(straight)), "measuring leaves no trace"


# --- number formats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_learns_too_and_is_off_on_a_cpu_unless_asked_for(amp):
    seen: list[torch.dtype] = []

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = toy_network()

        def forward(self, x: Tensor) -> Tensor:
            y = self.model(x)
            seen.append(y.dtype)
            return y

    assert train(Looking(), Bright(), changed(amp=amp), seed=0).accuracy > 0.9
    assert set(seen) == {torch.bfloat16 if amp == "bf16" else torch.float16}
    seen.clear()
    train(Looking(), Bright(), changed(epochs=1), seed=0)
    assert set(seen) == {torch.float32}


def test_a_run_that_diverges_in_half_precision_says_so():
    class Overflow(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1)) * math.inf

    with pytest.raises(TrainingError, match=r"training diverged: .* of 4 epochs \[diverged\]"):
        train(Overflow(48, 3), Bright(), changed(amp="bf16"), seed=0)


# --- several processes ------------------------------------------------------------------------------------------------


def test_shares_of_a_batch_are_equal_disjoint_and_hold_mirror_images():
    for batch, num in ((8, 2), (12, 3), (6, 2), (1024, 8), (3, 3)):
        shares = [share_of(batch, (rank, num)) for rank in range(num)]
        assert sorted(place for share in shares for place in share) == list(range(batch))
        assert {len(share) for share in shares} == {batch // num}
        if batch // num % 2 == 0:
            assert all(share[-1 - i] == batch - 1 - place for share in shares for i, place in enumerate(share))


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(TrainingError, match=r"32 images cannot be shared out among 3 processes(.|\n)*multiple of 3"):
        Training(toy_network(), Bright(), TOY, seed=0, processes=Processes(0, 3))
    with pytest.raises(TrainingError, match=r"in pairs, which mixup(.|\n)*multiple of 2"):
        Training(toy_network(), Bright(), changed(mixup=0.8, batch=31), seed=0)


def test_our_place_among_several_is_read_from_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert in_environment() == Processes()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(TrainingError, match=r"RANK does not say(.|\n)*torchrun"):
        in_environment()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert in_environment() == Processes(3, 4, 1)


TOGETHER = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import torch
torch.set_num_threads(1)
from conftest import load_torchvision
from toy_training import Bright, changed, toy_network
from archdsl.training import train
from archdsl.training.checkpoint import read_checkpoint, write_checkpoint
from archdsl.training.processes import joined
from pathlib import Path
cases, out = json.loads(sys.argv[2]), Path(sys.argv[3])
load_torchvision()
with joined("cpu") as processes:
    for name, (fields, options) in cases.items():
        def run(model, **more):
            return train(model, Bright(), changed(**fields), seed=5, processes=processes, **more)
        path = out / "checkpoint.safetensors"
        run(toy_network(**options), to_epoch=2, checkpoint=lambda state: write_checkpoint(path, state))
        torch.distributed.barrier()
        state = read_checkpoint(path)
        torch.distributed.barrier()
        model, again = toy_network(**options), toy_network(seed=9, **options)
        outcome = run(model)
        run(again, resume=state)
        exact = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
        torch.save({"model": model.state_dict(), "exact": exact,
                    "history": [(e.train_loss, e.val_accuracy) for e in outcome.history]},
                   out / f"{name} {processes.rank}.pt")
"""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "synchronised norms and an average": ({"sync_batchnorm": True, "ema_decay": 0.9}, {"dropout": 0.0}),
    "mixed batches": ({"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}, {"dropout": 0.0, "norm": False}),
    "norms of their own and dropout": ({}, {}),
}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Two processes train toys together, each with a cut after two epochs and without. -> what each of them has"""
    out = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = json.dumps([str(Path(__file__).parent), *sys.path])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, path, json.dumps(CASES), str(out)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return {name: [torch.load(out / f"{name} {rank}.pt", weights_only=True) for rank in range(2)] for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_one_network_and_go_on_exactly(together, case):
    first, second = together[case]
    assert same(first["model"], second["model"])
    assert first["history"] == second["history"]
    assert first["exact"] and second["exact"]
    assert first["history"][-1][1] > 0.9


@pytest.mark.parametrize("case", list(CASES)[:2])
def test_two_processes_come_to_what_one_comes_to(timm, together, case):
    fields, options = CASES[case]
    alone, both = toy_network(**options), toy_network(**options)
    expected = train(alone, Bright(), changed(**fields), seed=5)
    both.load_state_dict(together[case][0]["model"])
    for (loss, accuracy), epoch in zip(together[case][0]["history"], expected.history, strict=True):
        assert loss == pytest.approx(epoch.train_loss, rel=1e-3)
        assert accuracy == pytest.approx(epoch.val_accuracy, abs=0.011)
    images, _ = next(Bright().val_batches(96))
    with torch.no_grad():  # not the weights: a bias before a norm has no effect, and Adam makes steps of its rounding
        torch.testing.assert_close(both.eval()(images), alone.eval()(images), rtol=1e-2, atol=1e-2)


# --- signals ----------------------------------------------------------------------------------------------------------


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    data = "{type: synthetic, num_train: 128, num_val: 64}"
    command = ["train", "micro_swin", "--data", data, "--out", str(out), "--threads", "1", "--set", "stages.*.depth=1"]
    return subprocess.Popen(
        [sys.executable, "-m", "archdsl", *command, "--epochs", "12", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_training_keeps_its_last_epoch_and_goes_on(tmp_path, number):
    out = tmp_path / "run"
    running = start(out)
    assert running.stderr is not None
    assert running.stderr.readline().startswith("epoch 1 of 12")
    end = time.monotonic() + 30
    while not (out / "checkpoint.safetensors").is_file():
        assert time.monotonic() < end
        time.sleep(0.02)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert running.returncode == -signal.SIGKILL
    else:
        assert running.returncode == 130
        assert "--resume goes on" in said and "Traceback" not in said
    assert not (out / "model.safetensors").exists()
    again = start(out, "--resume")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "epoch 1 of 12" not in said and "epoch 12 of 12" in said
    assert len((out / "metrics.csv").read_text().splitlines()) == 13
