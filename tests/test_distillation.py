"""Learning from a teacher: the loss, where the teacher comes from, and the recipes of DeiT on a micro network."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from toy_training import TOY, Bright, changed, toy_network, weights

import archdsl
from archdsl.errors import Place, SpecError, TrainingError
from archdsl.language.architecture.load import load
from archdsl.training import RECIPES, Recipe, Training, parse_recipe, parse_source, train
from archdsl.training.distillation import Distillation, distillation_of
from archdsl.training.recipe import DISTILLING, BuildFor
from archdsl.training.tasks.classification import Classification
from archdsl.weights.writing import write_weights

CPU = torch.device("cpu")


class TwoHeads(nn.Module):
    """A toy student with two outputs and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = toy_network(dropout=0.0), toy_network(seed=1, dropout=0.0)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        cls, dist = self.one(images), self.two(images)
        return {"logits": (cls + dist) / 2, "cls": cls, "dist": dist}


class Says(nn.Module):
    """A teacher that answers with the brightness of the channels, the highest first where `wrong`."""

    def __init__(self, wrong: int = 0) -> None:
        super().__init__()
        self.norm, self.wrong = nn.BatchNorm2d(3), wrong  # statistics that must stay

    def forward(self, images: Tensor) -> Tensor:
        return 10 * self.norm(images).mean((2, 3)).roll(self.wrong, 1)


def failed(recipe: Recipe, model: nn.Module | None = None, teacher: nn.Module | None = None) -> Any:
    with pytest.raises(TrainingError) as caught:
        train(model or TwoHeads(), Bright(), recipe, seed=0, teacher=teacher)
    (problem,) = caught.value.problems
    return problem


# --- the recipe -------------------------------------------------------------------------------------------------------


def test_a_recipe_without_a_teacher_is_written_as_before_there_were_any():
    plain = parse_recipe("quick")
    assert not DISTILLING & plain.model_dump().keys()
    assert not any(f"{name}=" in plain.key() for name in DISTILLING)
    hard = parse_recipe("deit_distilled")
    assert hard.model_dump().keys() >= DISTILLING and "distillation=hard" in hard.key()
    assert parse_recipe(hard) == hard and parse_recipe(hard.model_dump(mode="json")) == hard


def test_the_recipes_of_deit_are_those_of_its_paper():
    deit, distilled = RECIPES["deit"], RECIPES["deit_distilled"]
    assert (deit.optimizer, deit.lr, deit.weight_decay, deit.batch, deit.epochs) == ("adamw", 1e-3, 0.05, 1024, 300)
    assert deit.warmup * deit.epochs == pytest.approx(5) and deit.schedule == "cosine" and deit.clip_grad is None
    assert (deit.mixup, deit.cutmix, deit.label_smoothing, deit.random_erasing) == (0.8, 1.0, 0.1, 0.25)
    assert (deit.drop_path, deit.auto_augment, deit.ema_decay) == (0.1, "rand-m9-mstd0.5-inc1", None)
    differs = {name for name in Recipe.model_fields if getattr(deit, name) != getattr(distilled, name)}
    assert differs == {"name", "distillation", "label_output", "teacher_output"}
    assert (distilled.distillation, distilled.distillation_weight) == ("hard", 0.5)


def test_the_recipe_of_levit_is_that_of_its_authors():
    levit, deit = RECIPES["levit"], RECIPES["deit_distilled"]
    assert (levit.epochs, levit.weight_decay, levit.drop_path) == (1000, 0.025, None)
    assert levit.warmup * levit.epochs == pytest.approx(5) and levit.final_lr * levit.lr == pytest.approx(1e-5)
    differs = {name for name in Recipe.model_fields if getattr(levit, name) != getattr(deit, name)}
    assert differs == {"name", "epochs", "warmup", "weight_decay", "drop_path"}


def test_a_teacher_without_distillation_is_refused(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: quick\nteacher: swin_t\n")
    with pytest.raises(SpecError, match=r"mine.yaml:2:10: `teacher` has no effect without `distillation`"):
        parse_recipe(str(path))


# --- the loss ---------------------------------------------------------------------------------------------------------


def losses(**fields: Any) -> tuple[float, Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    cls, dist, taught = (torch.randn(5, 3, generator=draw) for _ in range(3))
    labels = torch.tensor([0, 1, 2, 0, 1])
    recipe = changed(label_output="cls", teacher_output="dist", **fields)
    made = Distillation(Classification(3, recipe), recipe, Says(), CPU)
    answers = {"logits": (cls + dist) / 2, "cls": cls, "dist": dist}
    return made.loss(answers, taught, labels).item(), cls, dist, taught, labels


def test_hard_distillation_takes_the_teachers_class_for_a_label():
    got, cls, dist, taught, labels = losses(distillation="hard", distillation_weight=0.3)
    want = 0.7 * F.cross_entropy(cls, labels) + 0.3 * F.cross_entropy(dist, taught.argmax(1))
    assert got == pytest.approx(want.item(), rel=1e-6)


def test_soft_distillation_compares_all_answers_at_a_temperature():
    got, cls, dist, taught, labels = losses(distillation="soft", distillation_weight=0.1, temperature=3.0)
    p, q = (taught / 3).softmax(1), (dist / 3).softmax(1)
    want = 0.9 * F.cross_entropy(cls, labels) + 0.1 * 9 * (p * (p / q).log()).sum(1).mean()
    assert got == pytest.approx(want.item(), rel=1e-5)


def test_a_network_with_one_output_learns_from_both_with_it():
    recipe = changed(distillation="soft", temperature=2.0)
    train(model := toy_network(), Bright(), recipe, seed=0, teacher=Says())
    train(alone := toy_network(), Bright(), TOY, seed=0)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), alone.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_one_head_learns_from_the_labels_the_other_from_the_teacher(kind: str):
    teacher, model = Says(wrong=1), TwoHeads()
    before = weights(teacher)
    recipe = changed(distillation=kind, label_output="cls", teacher_output="dist")
    result = train(model, Bright(), recipe, seed=0, teacher=teacher)
    hits: dict[str, float] = {}
    with torch.no_grad():
        for images, labels in Bright().val_batches(96):
            for name, answer in model.eval()(images).items():
                hits[name] = (
                    (answer.argmax(1) == (labels if name != "dist" else (labels + 1) % 3)).double().mean().item()
                )
    assert hits["cls"] > 0.9 and hits["dist"] > 0.9, "the teacher is always wrong, and the second head learnt from it"
    assert result.accuracy == hits["logits"], "the first output is the one that is judged"
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_micro_batches_sum_to_the_same_gradients():
    recipe = changed(distillation="soft", label_output="cls", teacher_output="dist", epochs=1)
    ends = []
    for size in (None, 8):
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        torch.nn.init.zeros_(model[1].weight)
        torch.nn.init.zeros_(model[1].bias)
        plain = recipe.model_copy(update={"label_output": None, "teacher_output": None})
        train(model, Bright(), plain, seed=0, teacher=Says(), micro_batch=size)
        ends.append(model[1].weight.detach())
    assert float((ends[0] - ends[1]).abs().max()) < 1e-4


# --- the teacher ------------------------------------------------------------------------------------------------------


def test_a_teacher_is_a_spec_with_weights(tmp_path: Path):
    spec = load("micro_swin")
    state = archdsl.build(spec, seed=5).state_dict()
    write_weights(tmp_path / "teacher.safetensors", state)
    recipe = parse_recipe(
        {"extends": "quick", "distillation": "soft", "teacher": "micro_swin",
         "teacher_weights": str(tmp_path / "teacher.safetensors")}
    )  # fmt: skip
    data = parse_source({"type": "synthetic", "num_train": 32, "num_val": 8}).open((32, 32))
    made = distillation_of(Classification(data.num_classes), recipe, data, CPU, None)
    assert made is not None
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(made.answer(x), archdsl.build(spec, state).eval()(x), atol=1e-5)
    assert not any(weight.requires_grad for weight in made.teacher.parameters())


def test_a_teachers_files_are_relative_to_the_recipe_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "below").mkdir()
    base = "extends: quick\ndistillation: soft\nteacher: micro_swin\nteacher_weights: t.safetensors\n"
    (tmp_path / "below" / "base.yaml").write_text(base)
    (tmp_path / "mine.yaml").write_text("extends: below/base.yaml\nteacher: ./own.yaml\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = parse_recipe("../mine.yaml")
    assert (recipe.teacher, recipe.teacher_weights) == (
        f"{tmp_path}/./own.yaml",
        f"{tmp_path}/below/t.safetensors",
    )
    fields = {"extends": "quick", "distillation": "soft", "teacher": "swin_t", "teacher_weights": "t.safetensors"}
    assert parse_recipe(fields).teacher_weights == "t.safetensors", (
        "what no file says is relative to the working folder"
    )
    inside = Place(str(tmp_path / "mine.yaml"), 1, 1)
    assert parse_recipe(fields, inside).teacher_weights == f"{tmp_path}/t.safetensors"


def test_another_teacher_in_the_same_file_is_another_result(tmp_path: Path):
    path = tmp_path / "t.safetensors"
    recipe = changed(distillation="soft", teacher="micro_swin", teacher_weights=str(path))
    keys = [recipe.key()]
    for seed in (0, 1):
        write_weights(path, archdsl.build("micro_swin", seed=seed).state_dict())
        keys.append(recipe.key())
    moved = path.rename(tmp_path / "moved.safetensors")
    assert len(set(keys)) == 3
    assert recipe.model_copy(update={"teacher_weights": str(moved)}).key() == keys[-1], "not its name, its contents"
    assert changed(distillation="none").key() == changed().key()


def test_a_teacher_may_be_a_module_given_in_python_and_a_recipe_names_no_code(tmp_path: Path, monkeypatch):
    recipe = changed(distillation="hard")
    made = Training(toy_network(), Bright(), recipe, seed=0, teacher=Says()).micro_batches.distillation
    assert isinstance(made.teacher, Says)
    (tmp_path / "my_teachers.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    problem = failed(recipe.model_copy(update={"teacher": "my_teachers:says", "teacher_weights": "x"}))
    assert problem.rule == "teacher" and "there is no file `my_teachers:says`" in problem.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "has no teacher"),
        ({"teacher": "swin_t"}, "the teacher swin_t has no weights"),
        ({"teacher": "swim_t", "teacher_weights": "x"}, "the teacher swim_t cannot be made: no spec called `swim_t`"),
        ({"teacher": "swin_t", "teacher_weights": "x"}, "the teacher swin_t cannot be made"),
    ],
)
def test_a_teacher_that_cannot_be_made_is_told(fields: dict[str, str], words: str):
    problem = failed(changed(distillation="hard", **fields))
    assert problem.rule == "teacher" and words in problem.message


def test_a_teacher_of_other_classes_and_an_output_that_is_not_there_are_told():
    problem = failed(changed(distillation="hard"), teacher=toy_network(classes=4))
    assert (problem.rule, problem.message) == (
        "teacher",
        "the teacher answers [32, 4] for a batch, but the student [32, 3]",
    )
    problem = failed(changed(distillation="hard", teacher_output="dits"), teacher=Says())
    assert problem.message == "the network has no output 'dits'; its outputs are: logits, cls, dist"
    problem = failed(changed(distillation="hard", label_output="cls"), toy_network(), Says())
    assert problem.message == "the network has no output 'cls'; its outputs are: only one, without a name"


# --- one short run of each recipe -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two colours."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, channel in (("red", 0), ("blue", 2)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 100, (32, 32, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


MICRO: dict[str, tuple[str, dict[str, Any]]] = {
    "deit": ("deit_ti_distilled", {"stem.patch": 8, "stem.dim": 24, "stages.0.depth": 2}),
    "deit_distilled": ("deit_ti_distilled", {"stem.patch": 8, "stem.dim": 24, "stages.0.depth": 2}),
    "levit": ("levit_128s", {"stem.dims": [8, 16], "stem.stride": [2, 2], "stages.1.dim": 24, "stages.2.dim": 32}),
}


@pytest.mark.parametrize("name", MICRO)
def test_a_recipe_trains_a_micro_network(timm: ModuleType, folder: Path, name: str):
    recipe = parse_recipe(name, epochs=1, batch=8)
    of, changes = MICRO[name]
    sizes = {"input.size": 32, "head.classes": 2, **changes}
    data = parse_source({"type": "imagefolder", "path": str(folder), "workers": 0}).open((32, 32))
    model = BuildFor(recipe)(load(of, set=sizes), seed=0)
    before = weights(model)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)) if recipe.distillation != "none" else None
    result = train(model, data, recipe, seed=0, teacher=teacher)
    assert result.epochs == 1 and np.isfinite(result.history[0].train_loss)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert not torch.equal(before["head.fc_dist.weight"], model.state_dict()["head.fc_dist.weight"])
