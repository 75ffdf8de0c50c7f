"""Recipes, the loop, image folders and the evaluator, on networks that train in a second."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toy_training import TOY, Bright, same, toy_network, weights

from archdsl.errors import ArchError, SpecError, TrainingError
from archdsl.evaluators import RankAgreement, Stepwise, TrainEvaluator, measure_agreement, trust_of
from archdsl.training import RECIPES, Accuracy, JsonLines, Recipe, Training, parse_recipe, train
from archdsl.training.data import parse_source
from archdsl.training.data.imagefolder import Folder, ImageFolder
from archdsl.training.data.synthetic import SyntheticPairs
from archdsl.training.optimizers import decay_groups, redraw_fan_in
from archdsl.training.recipe import lr_factor


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_a_toy_is_learnt_and_every_epoch_is_reported():
    seen = []
    outcome = train(toy_network(), Bright(), TOY, seed=0, report=seen.append)
    assert outcome.accuracy > 0.9 and outcome.epochs == 4 and not outcome.stopped_early
    assert outcome.history == tuple(seen) and [epoch.number for epoch in seen] == [1, 2, 3, 4]
    assert seen[-1].train_loss < seen[0].train_loss
    assert outcome.accuracy == seen[-1].val_accuracy


@pytest.mark.parametrize("init", ["built", "fan_in"])
def test_one_seed_gives_one_set_of_weights_and_another_seed_others(init):
    recipe = TOY.model_copy(update={"init": init})
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(int(torch.randint(0, 1000, ())))  # whatever the caller did with torch's random numbers
        model = toy_network()
        train(model, Bright(), recipe, seed=seed)
        results.append(weights(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_threads_hold_while_training_and_the_caller_has_threads_and_random_numbers_back():
    threads, random_state, used = torch.get_num_threads(), torch.get_rng_state(), []
    for wanted in (1, 2):

        def report(epoch):
            return used.append(torch.get_num_threads())

        train(toy_network(), Bright(), TOY, seed=3, threads=wanted, report=report)
    assert used == [1] * 4 + [2] * 4
    assert torch.equal(random_state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_the_random_numbers_of_the_forward_pass_go_on_from_epoch_to_epoch():
    drawn: list[float] = []

    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            drawn.append(torch.rand(()).item())
            return super().forward(x.flatten(1))

    train(Noisy(48, 3), Bright(), TOY.model_copy(update={"epochs": 2}), seed=0)
    assert len(drawn) > 20
    assert len(set(drawn[:21])) == 21, "one number for each of 10 steps and one validation, twice"


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(cut, tmp_path):
    whole = toy_network()
    expected = train(whole, Bright(), TOY, seed=5)

    first = Training(toy_network(), Bright(), TOY, seed=5)
    for _ in range(cut):
        first.run_epoch()
    torch.save(first.state(), tmp_path / "state.pt")

    again = toy_network(seed=9)  # first weights do not matter: they come from the state
    outcome = train(again, Bright(), TOY, seed=5, resume=torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(weights(whole), weights(again))
    assert [e.val_accuracy for e in outcome.history] == [e.val_accuracy for e in expected.history]


def test_the_state_of_another_run_is_refused():
    state = Training(toy_network(), Bright(), TOY, seed=5).state()
    with pytest.raises(TrainingError, match=r"of another run: .*seed=5.*\[resume\]"):
        train(toy_network(), Bright(), TOY, seed=6, resume=state)


def test_should_stop_ends_a_run_and_a_checkpoint_is_given_after_each_epoch():
    states: list[dict[str, Any]] = []
    outcome = train(
        toy_network(), Bright(), TOY, seed=0, should_stop=lambda epoch: epoch.number == 2, checkpoint=states.append
    )
    assert outcome.stopped_early and outcome.epochs == 2 == len(states)
    assert len(states[-1]["history"]) == 2


def test_a_loss_that_is_not_a_number_is_an_error_with_a_reason():
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.steps = nn.Linear(48, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            return self.linear(x.flatten(1)) * (math.inf if self.steps > 15 else 1.0)

    with pytest.raises(
        TrainingError,
        match=r"^training:1:1: training diverged: the loss is not .* 4 epochs \[diverged\](.|\n)*lower lr",
    ):
        train(Overflow(), Bright(), TOY, seed=0)


def test_weights_that_became_nan_in_the_last_step_are_noticed():
    class NanInEval(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1)) * (1.0 if self.training else math.nan)

    with pytest.raises(TrainingError, match=r"output is not a number"):
        train(NanInEval(48, 3), Bright(), TOY, seed=0)


def test_a_head_that_is_too_narrow_is_refused_with_a_way_out_and_a_wider_one_is_noted():
    with pytest.raises(TrainingError, match=r"3 classes, but the network answers \[32, 2\](.|\n)*head.classes=3"):
        train(toy_network(classes=2), Bright(), TOY, seed=0)
    said: list[str] = []
    outcome = train(toy_network(classes=5), Bright(), TOY, seed=0, say=said.append)
    assert outcome.notes == ("the network can answer 5 classes, the data have 3",) == tuple(said)
    assert outcome.accuracy > 0.9


def test_a_batch_beyond_the_data_is_all_of_the_data_and_says_so():
    outcome = train(toy_network(), Bright(), TOY.model_copy(update={"batch": 1000}), seed=0)
    assert outcome.notes == ("a batch is 320 images, not 1000: there are only 320 to train on",)


def test_norms_biases_and_positions_get_no_weight_decay():
    model = nn.Module()
    model.attn = nn.Linear(4, 4)
    model.attn.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
    model.norm, model.pos_embed = nn.LayerNorm(4), nn.Parameter(torch.zeros(1, 5, 4))
    decayed, spared = decay_groups(model, 0.05)
    assert [id(p) for p in decayed["params"]] == [id(model.attn.weight)] and decayed["weight_decay"] == 0.05
    assert len(spared["params"]) == 5 and spared["weight_decay"] == 0.0


def test_redrawn_weights_suit_their_width_and_come_from_the_seed():
    model = nn.Sequential(nn.Conv2d(3, 64, 4), nn.Flatten(), nn.Linear(256, 400), nn.LayerNorm(400))
    redraw_fan_in(model, seed=0)
    assert model[0].weight.std().item() == pytest.approx((3 * 16) ** -0.5, rel=0.1)
    assert model[2].weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert (model[3].weight == 1).all()
    other = nn.Sequential(nn.Conv2d(3, 64, 4), nn.Flatten(), nn.Linear(256, 400), nn.LayerNorm(400))
    redraw_fan_in(other, seed=0)
    assert torch.equal(model[2].weight, other[2].weight)
    redraw_fan_in(other, seed=1)
    assert not torch.equal(model[2].weight, other[2].weight)


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_is_named_changed_and_written_out_again():
    recipe = parse_recipe({"extends": "quick", "lr": 0.01}, epochs=7)
    assert (recipe.lr, recipe.epochs, recipe.batch) == (0.01, 7, RECIPES["quick"].batch)
    assert parse_recipe("swin").epochs == 300 and parse_recipe("swin", epochs=None) == RECIPES["swin"]
    assert parse_recipe(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe
    assert recipe.key() != RECIPES["quick"].key() == RECIPES["quick"].model_copy(update={"name": "renamed"}).key()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("qick", r"^--recipe:1:1: no recipe called `qick` .* \[unknown-name\](.|\n)*did you mean `quick`"),
        (
            {"extends": "quick", "learning_rate": 1},
            r"unknown key `learning_rate` \[unknown-key\](.|\n)*A recipe has: amp, ",
        ),
        ({"extends": "quick", "lr": -1}, r"`lr` must be more than 0, but got `-1` \[out-of-range\]"),
        ({"extends": "quick", "lr": math.nan}, r"`lr` must be a finite number, but got `.nan` \[wrong-value\]"),
        ({"extends": "quick", "epochs": "many"}, r"`epochs` must be a whole number, but got `many` \[wrong-type\]"),
        (
            {"extends": "quick", "schedule": "linear"},
            r"`schedule` must be one of `one_cycle`, `cosine`, but got `linear` \[wrong-value\]",
        ),
        ({"extends": 3}, r"`extends` names a recipe, but got `3` \[wrong-type\]"),
        ({"lr": 1}, r"(?s)`epochs` is missing: a recipe needs it \[missing-key\].*`batch` is missing"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(value, message):
    with pytest.raises(SpecError, match=message):
        parse_recipe(value)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_the_learning_rate_rises_to_its_peak_once_and_falls_to_its_end(schedule):
    recipe = Recipe(epochs=1, batch=1, lr=1, schedule=schedule, warmup=0.2, final_lr=0.01)
    factors = [lr_factor(step, 100, recipe) for step in range(100)]
    peak = factors.index(max(factors))
    assert peak == 20 and factors[20] == pytest.approx(1.0)
    assert factors[:21] == sorted(factors[:21]) and factors[20:] == sorted(factors[20:], reverse=True)
    assert 0 < factors[0] < 0.1 and factors[-1] == pytest.approx(0.01, abs=1e-3)
    assert lr_factor(0, 1, recipe) == pytest.approx(1.0)  # a run of one step


# --- image folders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of JPEGs by colour, of different sizes; 2 corrupt files in train, 1 in val, and a text file."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 5)):
        for channel, name in enumerate(("blue_bird", "red fish", "zebra")):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 90, (40 + 3 * index, 50, 3), dtype=np.uint8)
                pixels[:, :, channel] += 150
                Image.fromarray(pixels).save(root / part / name / f"{index}.jpg", quality=95)
    (root / "train/zebra/0.jpg").write_bytes(b"not a picture")
    whole = (root / "train/red fish/1.jpg").read_bytes()
    (root / "train/red fish/1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "val/zebra/2.JPEG").write_bytes(b"")
    (root / "train/zebra/notes.txt").write_text("no image")
    return root


def opened(folder: Path, **fields: Any) -> Folder:
    data = ImageFolder(**{"path": str(folder), "workers": 0, **fields}).open((16, 24))
    assert isinstance(data, Folder)
    return data


def test_an_image_folder_is_read_and_corrupt_files_are_named_skipped_and_counted(folder, caplog):
    data = opened(folder)
    with caplog.at_level(logging.WARNING):
        train_batches = list(data.train_batches(6, seed=0, epoch=0))
        val_batches = list(data.val_batches(4))
    assert data.classes == ["blue_bird", "red fish", "zebra"] and data.num_train == 36
    assert len(train_batches) == 6 and {tuple(images.shape) for images, _ in train_batches} == {(6, 3, 16, 24)}
    assert sum(len(labels) for _, labels in val_batches) == 15 == data.num_val
    assert len(data.corrupt) == 3
    for name in ("train/zebra/0.jpg", "train/red fish/1.jpg", "val/zebra/2.JPEG"):
        assert f"skipped `{folder / name}`" in caplog.text
    images, labels = val_batches[0]
    assert (images.mean(dim=(2, 3)).argmax(dim=1) == labels).all(), "the bright channel is the class"


def test_the_order_and_the_crops_come_from_seed_and_epoch(folder):
    data = opened(folder)

    def images(seed: int, epoch: int) -> Tensor:
        return torch.cat([images for images, _ in data.train_batches(6, seed=seed, epoch=epoch)])

    assert torch.equal(images(0, 0), images(0, 0))
    assert not torch.equal(images(0, 0), images(0, 1))
    first, second = ({image.numpy().tobytes() for image in images(0, epoch)} for epoch in (0, 1))
    assert not first & second, "every file is cropped anew in every epoch"
    assert not torch.equal(images(0, 0), images(1, 0))


def test_worker_processes_give_the_same_images_and_report_corrupt_files(folder):
    alone, workers = opened(folder), opened(folder, workers=2)
    for one, other in zip(
        alone.train_batches(9, seed=1, epoch=0), workers.train_batches(9, seed=1, epoch=0), strict=True
    ):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert workers.corrupt == alone.corrupt and len(workers.corrupt) == 2


def test_a_network_learns_from_an_image_folder(folder):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    outcome = train(model, opened(folder), TOY.model_copy(update={"batch": 6, "lr": 0.1}), seed=0)
    assert outcome.accuracy == 1.0 and outcome.num_val_independent == 15


def test_a_folder_that_is_not_there_or_empty_says_what_is_expected(tmp_path, folder):
    with pytest.raises(TrainingError, match=r"there is no folder `.*train` \[missing-folder\](.|\n)*<class>/\*\.jpg"):
        opened(tmp_path / "missing")
    nothing = r"holds neither train/<class>/ nor class folders with images \[no-images\]"
    with pytest.raises(TrainingError, match=nothing):
        opened(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(TrainingError, match=nothing):
        opened(tmp_path)
    (tmp_path / "train" / "a").mkdir()
    with pytest.raises(TrainingError, match=r"no class folder with images \[no-images\]"):
        opened(tmp_path)
    for name in ("train/a", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "x.png")
    with pytest.raises(TrainingError, match=r"classes that `train` has not: b \[classes\]"):
        opened(tmp_path)
    assert parse_source(f"imagefolder:{folder}") == ImageFolder(path=str(folder))


def test_a_network_without_weights_is_refused():
    with pytest.raises(TrainingError, match=r"no weights that can be trained \[no-weights\]"):
        train(nn.Flatten(), Bright(), TOY, seed=0)


def test_a_set_of_nothing_but_corrupt_files_ends_with_a_reason(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        for index in range(8):
            (tmp_path / part / "a" / f"{index}.jpg").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"not one image of the training set could be read \(.*\) \[no-images\]"):
        train(nn.Linear(1, 1), opened(tmp_path), TOY.model_copy(update={"batch": 2}), seed=0)


# --- the evaluator ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sketch:
    """Stands for a spec."""

    width: int

    @property
    def input(self) -> Any:
        return SimpleNamespace(size=(8, 8), channels=3)


def evaluator(built: list[int], **options: Any) -> TrainEvaluator[Sketch]:
    def build(spec: Sketch, *, seed: int) -> nn.Module:
        built.append(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Flatten(), nn.Linear(192, spec.width), nn.ReLU(), nn.Linear(spec.width, 2))

    source = SyntheticPairs(num_train=128, num_val=64, colours=2)
    recipe = parse_recipe("quick", epochs=2, batch=32)
    return TrainEvaluator(source, recipe, build=build, identify=lambda spec: f"width {spec.width}", **options)


def test_an_evaluator_says_mean_spread_cost_and_whose_accuracy_it_is():
    built: list[int] = []
    accuracy = evaluator(built, num_seeds=3)(Sketch(16), seed=4)
    assert accuracy.seeds == (4, 5, 6) and built == [4, 5, 6] and len(set(accuracy.values)) > 1
    assert accuracy.mean == pytest.approx(sum(accuracy.values) / 3)
    assert accuracy.sd == pytest.approx(np.std(accuracy.values, ddof=1))
    assert (accuracy.num_val, accuracy.num_val_independent, accuracy.epochs) == (64, 32, 2)
    assert accuracy.seconds > 0 and accuracy.data.startswith("synthetic") and accuracy.recipe == "quick"
    assert "3 seeds" in str(accuracy) and json.loads(json.dumps(accuracy.as_json()))["standard_error"] > 0


def test_no_network_is_trained_twice_with_one_seed(tmp_path):
    built: list[int] = []
    first = evaluator(built, results=JsonLines(tmp_path / "runs.jsonl"))(Sketch(8), seed=0)
    again = evaluator(built, results=JsonLines(tmp_path / "runs.jsonl"), num_seeds=2)(Sketch(8), seed=0)
    assert len(built) == 2 and (first.reused, again.reused) == (0, 1)
    assert again.values[0] == first.values[0]
    evaluator(built, results=JsonLines(tmp_path / "runs.jsonl"))(Sketch(9), seed=0)
    assert len(built) == 3, "another network is trained"


def test_progress_comes_with_the_seed_of_the_run():
    seen: list[tuple[int, int]] = []
    evaluator([], num_seeds=2, report=lambda seed, epoch: seen.append((seed, epoch.number)))(Sketch(8), seed=0)
    assert seen == [(0, 1), (0, 2), (1, 1), (1, 2)]


def accuracy_of(mean: float, sd: float | None, seeds: int = 1) -> Accuracy:
    return Accuracy(mean, sd, (mean,) * seeds, tuple(range(seeds)), 1000, 1000, 1, 1.0, 0, "d", "r")


def test_the_standard_error_has_both_sources_and_is_never_zero():
    assert accuracy_of(0.5, None).standard_error == pytest.approx(math.sqrt(0.25 / 1000), rel=0.01)
    assert accuracy_of(1.0, None).standard_error > 0.001
    assert accuracy_of(0.5, 0.3, seeds=3).standard_error == pytest.approx(0.3 / math.sqrt(3), rel=0.01)


def test_a_torn_or_damaged_line_is_a_miss_and_what_follows_is_kept(tmp_path):
    path = tmp_path / "runs.jsonl"
    JsonLines(path)["a"] = {"accuracy": 0.5}
    path.write_bytes(path.read_bytes()[:-9])  # a writer was killed
    store = JsonLines(path)
    assert store.get("a") is None
    store["b"] = {"accuracy": 0.25}
    assert JsonLines(path).get("b") == {"accuracy": 0.25}
    path.write_text(path.read_text().replace("0.25", "0.95"))
    assert JsonLines(path).get("b") is None


def test_two_stores_on_one_file_see_each_other_and_lose_nothing(tmp_path):
    path = tmp_path / "runs.jsonl"
    reader = JsonLines(path)
    assert reader.get("0-0") is None

    def write(writer: int) -> None:
        store = JsonLines(path)
        for index in range(20):
            store[f"{writer}-{index}"] = {"accuracy": writer + index / 100}

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert all(reader.get(f"{w}-{i}") == {"accuracy": w + i / 100} for w in range(4) for i in range(20))


# --- judging early ----------------------------------------------------------------------------------------------------


def test_a_network_is_judged_early_and_gone_on_with_for_the_epochs_that_are_missing(tmp_path):
    built: list[int] = []
    whole = evaluator([], num_seeds=2)(Sketch(8), seed=0)
    done: list[tuple[int, int]] = []
    step = evaluator(
        built, num_seeds=2, checkpoints=tmp_path, report=lambda seed, epoch: done.append((seed, epoch.number))
    )
    early = step.advance(Sketch(8), seed=0, to_epoch=1)
    assert (early.epochs, early.of_epochs, early.paid_epochs, early.is_final) == (1, 2, 2, False)
    assert "1 of 2 epochs" in str(early)
    assert len(list(tmp_path.iterdir())) == 2
    late = step.advance(Sketch(8), seed=0, to_epoch=2)
    assert (late.epochs, late.paid_epochs, late.reused, late.is_final) == (2, 2, 0, True)
    assert done == [(0, 1), (1, 1), (0, 2), (1, 2)], "no epoch is done twice"
    assert late.values == whole.values, "bit by bit what it would have been"
    assert not list(tmp_path.iterdir()), "nothing is kept of a run that has ended"
    again = step.advance(Sketch(8), seed=0, to_epoch=1)
    assert (again.paid_epochs, again.reused, again.values) == (0, 2, early.values)
    assert step(Sketch(8), seed=0) == dataclasses.replace(late, paid_epochs=0, reused=2)


def test_what_a_finished_run_had_come_to_on_the_way_is_known_without_training(tmp_path):
    built: list[int] = []
    known = evaluator(built, results=JsonLines(tmp_path / "runs.jsonl"))
    known(Sketch(8), seed=0)
    early = known.advance(Sketch(8), seed=0, to_epoch=1)
    assert (early.paid_epochs, early.epochs) == (0, 1) and built == [0]
    assert early.mean == evaluator([]).advance(Sketch(8), seed=0, to_epoch=1).mean


def test_without_a_folder_for_them_or_with_damaged_ones_runs_begin_anew_and_come_to_the_same(tmp_path, caplog):
    expected = evaluator([])(Sketch(8), seed=0)
    plain = evaluator([], results={})
    plain.advance(Sketch(8), seed=0, to_epoch=1)
    found = plain.advance(Sketch(8), seed=0, to_epoch=2)
    assert (found.values, found.paid_epochs) == (expected.values, 2)
    keeping = evaluator([], results={}, checkpoints=tmp_path)
    keeping.advance(Sketch(8), seed=0, to_epoch=1)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        found = keeping.advance(Sketch(8), seed=0, to_epoch=2)
    assert (found.values, found.paid_epochs) == (expected.values, 2)
    assert "the run begins anew" in caplog.text


def test_a_network_that_is_given_up_leaves_nothing_behind(tmp_path):
    step = evaluator([], num_seeds=2, checkpoints=tmp_path)
    step.advance(Sketch(8), seed=0, to_epoch=1)
    step.advance(Sketch(9), seed=0, to_epoch=1)
    step.discard(Sketch(8), seed=0)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(TrainingError, match=r"`to_epoch` must be 1 to 2, .* got 3 \[out-of-range\]"):
        step.advance(Sketch(8), seed=0, to_epoch=3)


# --- evaluators -------------------------------------------------------------------------------------------------------


class Proxy:
    """A toy of another kind."""

    name, kind = "width", "proxy"

    def __init__(self, agreement: RankAgreement | None):
        self.agreement = agreement

    def __call__(self, spec: Sketch, *, seed: int) -> Accuracy:
        return accuracy_of(spec.width / 100, None)


def test_every_evaluator_states_how_far_its_ranks_are_those_of_training():
    values, trained = [1.0, 2, 3, 4, 5, 6], [0.1, 0.3, 0.2, 0.4, 0.6, 0.5]
    agreement = measure_agreement(values, trained, "train: toys, 2 epochs")
    assert agreement.tau == pytest.approx(11 / 15) and agreement.num_networks == 6
    assert -1 <= agreement.low < agreement.tau <= agreement.high <= 1
    assert trust_of(Proxy(None)) == "width (proxy): rank correlation with real training not measured"
    assert "tau 0.73 (" in trust_of(Proxy(agreement)) and "6 networks) with train: toys" in trust_of(Proxy(agreement))
    assert trust_of(evaluator([])) == "train: real training, the reference itself"
    assert isinstance(evaluator([]), Stepwise) and not isinstance(Proxy(None), Stepwise)


def test_rank_agreement_has_its_known_ends_and_counts_ties():
    up = [0.0, 1, 2, 3, 4]
    same_order, reversed_order = measure_agreement(up, up, "r"), measure_agreement(up, up[::-1], "r")
    assert (same_order.tau, reversed_order.tau) == (1.0, -1.0)
    assert measure_agreement([1.0, 1, 2, 3], [1.0, 2, 2, 3], "r").tau == pytest.approx(4 / 5)  # tau-b: 4 / sqrt(5 * 5)
    assert measure_agreement([1.0, 1, 1, 2], [1.0, 2, 3, 4], "r").tau == pytest.approx(3 / math.sqrt(3 * 6))
    for wrong in ([1.0, 2, 3], [1.0, 1, 1, 1, 1], [math.nan, 1, 2, 3, 4]):
        with pytest.raises(ValueError, match=r"networks evaluated|no order|finite"):
            measure_agreement(wrong, up, "r")


# --- the package ------------------------------------------------------------------------------------------------------


def test_reading_recipes_and_sources_needs_no_torch():
    code = (
        "import sys; from archdsl.training import parse_recipe, parse_source\n"
        "parse_recipe('quick'); parse_source('synthetic'); parse_source('imagefolder:/x')\n"
        "print(sorted({'torch', 'optuna', 'click', 'torchvision', 'timm', 'PIL'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_error_of_training_is_an_arch_error():
    assert issubclass(TrainingError, ArchError) and TrainingError.exit_code == 1
