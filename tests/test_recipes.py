"""Recipes as files: shipped, one's own, extended; and what they ask of timm."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_image_folder import write_images
from toy_training import Bright, changed, same, toy_network, weights

from archdsl import build, load
from archdsl.errors import Place, SpecError, TrainingError
from archdsl.language.text.files import shipped
from archdsl.training import RECIPES, Training, parse_recipe, train
from archdsl.training.data.imagefolder import ImageFolder
from archdsl.training.data.views import MEAN, STD
from archdsl.training.recipe import BuildFor, with_drop_path
from archdsl.training.timm_parts import Augmentation, AugmentedView, Mixer, seeded


def test_every_shipped_recipe_is_named_as_its_file_and_loads():
    assert {path.stem for path in shipped("recipes")} == set(RECIPES) >= {"swin", "quick"}
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def test_the_quick_recipe_asks_for_nothing_but_torch():
    quick = RECIPES["quick"]
    assert not quick.mixes and not quick.augments
    assert quick.optimizer == "adamw" and quick.ema_decay is None
    assert (quick.init, quick.epochs, quick.batch, quick.lr) == ("fan_in", 2, 32, 4e-3)
    assert (quick.schedule, quick.warmup, quick.clip_grad, quick.amp) == ("one_cycle", 0.2, 1.0, "auto")


def test_the_swin_recipe_is_that_of_its_authors():
    swin = RECIPES["swin"]
    assert (swin.optimizer, swin.lr, swin.weight_decay, swin.clip_grad, swin.batch) == ("adamw", 1e-3, 0.05, 5.0, 1024)
    assert swin.warmup * swin.epochs == pytest.approx(20) and swin.schedule == "cosine"
    assert (swin.mixup, swin.cutmix, swin.label_smoothing, swin.random_erasing) == (0.8, 1.0, 0.1, 0.25)
    assert (swin.auto_augment, swin.color_jitter, swin.ema_decay) == ("rand-m9-mstd0.5-inc1", 0.4, None)


def test_the_resnet_recipe_is_that_of_bag_of_tricks():
    resnet = RECIPES["resnet"]
    assert (resnet.optimizer, resnet.lr, resnet.momentum, resnet.weight_decay, resnet.batch) == (
        "sgd",
        0.1,
        0.9,
        1e-4,
        256,
    )
    assert (resnet.epochs, resnet.warmup * resnet.epochs, resnet.schedule) == (120, pytest.approx(5), "cosine")
    assert (resnet.label_smoothing, resnet.mixup, resnet.cutmix, resnet.ema_decay) == (0.1, 0.0, 0.0, None)


def test_the_convnext_recipe_is_that_of_its_paper():
    convnext = RECIPES["convnext"]
    assert (convnext.optimizer, convnext.lr, convnext.weight_decay, convnext.batch) == ("adamw", 4e-3, 0.05, 4096)
    assert (convnext.epochs, convnext.warmup * convnext.epochs, convnext.ema_decay) == (300, pytest.approx(20), 0.9999)
    assert (convnext.mixup, convnext.cutmix, convnext.label_smoothing, convnext.random_erasing) == (0.8, 1.0, 0.1, 0.25)
    assert convnext.drop_path is None and load("convnext_s").drop_path == 0.4, "which the spec says"


@pytest.mark.parametrize(
    ("name", "spec"), [("resnet", "resnet_50"), ("convnext", "convnext_t"), ("swin", "micro_swin")]
)
def test_a_short_run_of_a_shipped_recipe_learns(timm, name, spec, tmp_path):
    small = {"stages.*.depth": 1, "head.classes": 3, "input.size": 32}
    widths = {"resnet_50": {"stages.0.dim": 32, "stem.dims": [8]}, "convnext_t": {"stem.dim": 8}, "micro_swin": {}}
    data = ImageFolder(path=str(write_images(tmp_path, train=8, val=2)), workers=0).open((32, 32))
    model = build(load(spec, set=small | widths[spec]), training=True)
    before = [weight.clone() for weight in model.parameters()]
    found = train(model, data, parse_recipe(name, epochs=2, batch=8), seed=0)
    assert found.epochs == 2 and all(weight.isfinite().all() for weight in model.parameters())
    assert any(not torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_extends_a_shipped_recipe_or_another_file(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: swin\nepochs: 5\nlr: 2e-3\n")
    (tmp_path / "mine.yaml").write_text("extends: ./base.yaml\nlr: 1e-4\n")
    recipe = parse_recipe(str(tmp_path / "mine.yaml"), batch=64)
    assert (recipe.name, recipe.epochs, recipe.lr, recipe.batch, recipe.mixup) == ("mine", 5, 1e-4, 64, 0.8)


def test_all_mistakes_of_a_recipe_come_at_once_each_at_its_place(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: swin\nmixup: much\nwarmpu: 0.1\nauto_augment: rnd-m9\nema_decay: 1.5\n")
    with pytest.raises(SpecError) as caught:
        parse_recipe(str(path))
    found = [(p.place.line, p.place.column, p.rule) for p in caught.value.problems]
    assert found == [(2, 8, "wrong-type"), (3, 1, "unknown-key"), (4, 15, "wrong-value"), (5, 12, "out-of-range")]
    assert "did you mean `warmup`?" in caught.value.text()
    assert all(p.place.file == str(path) for p in caught.value.problems)


def test_what_a_file_extends_is_blamed_where_it_is_written(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: quick\nlr: -1\n")
    (tmp_path / "mine.yaml").write_text("extends: ./base.yaml\n")
    with pytest.raises(SpecError, match=r"base.yaml:2:5: `lr` must be more than 0"):
        parse_recipe(str(tmp_path / "mine.yaml"))


def test_a_change_from_the_command_line_is_blamed_there():
    with pytest.raises(SpecError, match=r"^--epochs:1:1: `epochs` must be at least 1, but got `0`"):
        parse_recipe("quick", epochs=0)


def test_a_circle_and_a_way_out_of_the_project_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: ./b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml\n")
    with pytest.raises(SpecError, match=r"the recipe extends itself: .*a.yaml -> .*b.yaml -> .*a.yaml"):
        parse_recipe(str(tmp_path / "a.yaml"))
    (tmp_path / "c.yaml").write_text("extends: ../elsewhere.yaml\n")
    with pytest.raises(SpecError, match=r"leads out of the project"):
        parse_recipe(str(tmp_path / "c.yaml"))


def test_a_space_names_a_recipe_by_a_path_from_itself(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/mine.yaml").write_text("extends: quick\nepochs: 9\n")
    space = tmp_path / "space.yaml"
    space.write_text("recipe: recipes/mine.yaml\n")
    monkeypatch.chdir(tmp_path.parent)
    assert parse_recipe("recipes/mine.yaml", Place(str(space))).epochs == 9
    with pytest.raises(SpecError, match=r"space.yaml:1:1: .* leads out of the project"):
        parse_recipe("../mine.yaml", Place(str(space)))
    with pytest.raises(SpecError, match=r"space.yaml:1:1: no recipe called `qick`"):
        parse_recipe("qick", Place(str(space)))


def test_the_key_of_a_recipe_names_every_field_but_its_name():
    recipe = RECIPES["swin"]
    for field, value in {
        "mixup": 0.1,
        "ema_decay": 0.5,
        "drop_path": 0.0,
        "amp": "fp16",
        "sync_batchnorm": True,
    }.items():
        assert recipe.model_copy(update={field: value}).key() != recipe.key()
    assert recipe.model_copy(update={"name": "other"}).key() == recipe.key()


# --- stochastic depth -------------------------------------------------------------------------------------------------


def rates(model: torch.nn.Module) -> list[float]:
    return [module.rate for module in model.modules() if type(module).__name__ == "StochasticDepth"]


def test_a_recipe_sets_the_drop_path_which_rises_linearly_over_all_blocks():
    spec = load("micro_swin")
    assert rates(BuildFor(RECIPES["quick"])(spec, seed=0)) == []
    found = sorted(set(rates(BuildFor(parse_recipe("quick", drop_path=0.3))(spec, seed=0))))
    assert found == pytest.approx([0.1, 0.2, 0.3]), "the first of four blocks has none"
    assert with_drop_path(load("swin_t"), RECIPES["swin"]) == load("swin_t"), "null leaves the spec's own"
    assert with_drop_path(load("swin_t"), parse_recipe("swin", drop_path=0.0)).drop_path == 0.0


# --- timm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{"mixup": 0.8}, {"cutmix": 1.0}, {"ema_decay": 0.9}, {"optimizer": "lamb"}], ids=lambda f: next(iter(f))
)
def test_without_timm_only_what_needs_it_is_refused_with_the_way_to_get_it(monkeypatch, fields):
    for name in ("timm", "timm.data", "timm.utils", "timm.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    train(toy_network(), Bright(), changed(epochs=1), seed=0)
    (field,) = fields
    with pytest.raises(
        TrainingError, match=rf"`{field}` of the recipe needs timm(.|\n)*pip install 'archdsl\[train\]'"
    ):
        train(toy_network(), Bright(), changed(**fields), seed=0)


def test_a_torchvision_that_does_not_fit_is_told_in_its_own_words(monkeypatch):
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("archdsl.training.timm_parts.import_module", broken)
    with pytest.raises(TrainingError, match=r"torchvision::nms does not exist(.|\n)*belongs to this torch"):
        Mixer(changed(mixup=0.8), 3)


def test_mixing_pairs_an_image_with_its_mirror_image_and_shares_out_its_label(timm):
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).clone()
    labels = torch.tensor([0, 1, 2, 2])
    mixed, shares = Mixer(changed(mixup=1.0, label_smoothing=0.0), 3)(images.clone(), labels, "seed")
    part = shares[0, 0].item()
    assert 0 < part < 1
    assert mixed[0, 0, 0, 0].item() == pytest.approx(0 * part + 3 * (1 - part), abs=1e-5)
    assert shares[0].tolist() == pytest.approx([part, 0, 1 - part]) and shares.sum(1).tolist() == pytest.approx(
        [1.0] * 4
    )
    again, _ = Mixer(changed(mixup=1.0, label_smoothing=0.0), 3)(images.clone(), labels, "seed")
    assert torch.equal(mixed, again)


def test_seeded_gives_back_everybody_their_random_numbers():
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(()).item()

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = drawn()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    with seeded("a"):
        one = drawn()
    assert drawn() == expected
    with seeded("a"):
        assert drawn() == one
    with seeded("b"):
        assert drawn() != one


def test_a_view_is_augmented_by_timm_from_its_seed_alone(timm):
    view = AugmentedView(Augmentation("rand-m9-mstd0.5-inc1", 0.4, 0.25), (16, 24), 0.08, MEAN, STD)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    views = [view(image, f"{seed}") for seed in range(8)]
    assert {tuple(each.shape) for each in views} == {(3, 16, 24)}
    torch.rand(3)
    assert all(torch.equal(each, view(image, f"{seed}")) for seed, each in enumerate(views))
    assert not torch.equal(views[0], views[1])


def test_an_augmentation_that_timm_does_not_know_is_an_error(timm):
    view = AugmentedView(Augmentation("rand-x9", 0.0, 0.0), (16, 16), 0.08, MEAN, STD)
    with pytest.raises(TrainingError, match=r"does not know the augmentation 'rand-x9'(.|\n)*rand-m9-mstd0.5-inc1"):
        view.prepare()


def test_images_whose_label_would_change_are_not_augmented():
    with pytest.raises(TrainingError, match=r"`random_erasing`, but these data cannot be augmented"):
        Training(toy_network(), Bright(), changed(random_erasing=0.25), seed=0)


def test_the_average_of_the_weights_is_what_is_judged_and_kept(timm):
    plain, averaged = toy_network(), toy_network()
    train(plain, Bright(), changed(), seed=0)
    training = Training(averaged, Bright(), changed(ema_decay=0.99), seed=0)
    while not training.finished:
        training.run_epoch()
    assert same(weights(training.model), weights(plain)), "the average does not change the training"
    assert not same(weights(training.evaluated_model), weights(plain))
    again = toy_network()
    outcome = train(again, Bright(), changed(ema_decay=0.99), seed=0)
    assert same(weights(again), weights(training.evaluated_model))
    assert outcome.accuracy == training.history[-1].val_accuracy


@pytest.mark.parametrize("optimizer", ["nadamw", "adan", "lamb", "lion", "sgd"])
def test_timms_optimisers_learn_and_follow_the_schedule(timm, optimizer):
    outcome = train(
        toy_network(), Bright(), changed(optimizer=optimizer, lr=1e-2 if optimizer != "lion" else 1e-3), seed=0
    )
    assert outcome.accuracy > 0.6
    assert outcome.history[-1].lr < outcome.history[1].lr


def test_the_shim_for_child_processes_is_the_one_of_this_process():
    shim = (Path(__file__).parent / "torchvision_shim/sitecustomize.py").read_text()
    here = (Path(__file__).parent / "conftest.py").read_text()
    for schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", "qnms(Tensor dets,"):
        assert schema in shim and schema in here
