"""How a network is trained, as plain fields: shipped recipes, files of one's own, and what a user changes in them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from archdsl.errors import Place, at_argument
from archdsl.language.architecture.load import loads
from archdsl.language.architecture.merge import open_reference
from archdsl.language.architecture.model import Spec
from archdsl.language.architecture.read import read_fields
from archdsl.language.architecture.schema import DRAFT, Json, properties_of
from archdsl.language.text.explain import broken
from archdsl.language.text.files import Budget, Home, home_of, is_name, open_given, open_named, shipped_names
from archdsl.language.text.limits import MAX_EXTENDS
from archdsl.language.text.node import Mark, NameOfFile, YamlNode, fail, node_of
from archdsl.language.text.render import shown
from archdsl.language.text.words import NAME
from archdsl.language.text.yaml_text import parse

if TYPE_CHECKING:
    from torch import nn

Part = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]

Optimizer = Literal["adamw", "nadamw", "adan", "lamb", "lion", "sgd"]
Amp = Literal["auto", "off", "bf16", "fp16"]

DISTILLING = frozenset(
    {
        "distillation",
        "distillation_weight",
        "temperature",
        "teacher",
        "teacher_weights",
        "teacher_names",
        "label_output",
        "teacher_output",
    }
)
"""The fields of a recipe that say how to learn from a teacher."""


class Recipe(BaseModel):
    """Optimiser, schedule, augmentation and length of a training run. The seed is not in it: it belongs to the run.

    Every field is described in docs/training.md and in `archdsl schema recipe`; files are read by `parse_recipe`.
    init: `built` starts from the weights that the network was built with; `fan_in` draws them anew from the run's seed
    at a scale that suits narrow networks (see training/optimizers.py).
    Weight decay is never applied to norms, biases, relative position tables and position embeddings. The learning rate
    at each step is `lr * lr_factor(step, …)`. Augmentation, mixing, averaging and other optimisers need timm.

    Example:
        >>> from archdsl.training import Recipe
        >>> recipe = Recipe(epochs=10, batch=64, lr=1e-3, warmup=0.2)
        >>> recipe.optimizer, recipe.schedule, recipe.mixes
        ('adamw', 'cosine', False)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str = Field(
        default="custom",
        pattern=NAME,
        max_length=200,
        description="shown in reports; does not change the training",
    )
    init: Literal["built", "fan_in"] = Field(
        default="built", description="first weights: the network's own, or drawn anew"
    )
    epochs: int = Field(ge=1, le=100_000, description="passes through the training set")
    batch: int = Field(ge=1, le=1_000_000, description="images a step, over all processes and micro-batches")
    optimizer: Optimizer = Field(default="adamw", description="torch's AdamW, or one of timm's")
    lr: float = Field(gt=0, le=100, description="highest learning rate")
    betas: tuple[Part, Part] = Field(
        default=(0.9, 0.999), strict=False, description="decay of AdamW's and NAdamW's two moments"
    )
    momentum: Part = Field(default=0.9, description="of `sgd`")
    weight_decay: float = Field(default=0.05, ge=0, le=100)
    schedule: Literal["one_cycle", "cosine"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="part of all steps in which the learning rate rises")
    final_lr: float = Field(default=0.0, ge=0, le=1, description="learning rate at the end, as a part of `lr`")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_grad: float | None = Field(
        default=None, gt=0, description="largest norm of all gradients together; null: no limit"
    )
    drop_path: Part | None = Field(
        default=None,
        description="stochastic depth of the last block, rising linearly from 0 in the first; null: as the spec says",
    )
    mixup: float = Field(default=0.0, ge=0, le=100, description="alpha of mixup; 0: none")
    cutmix: float = Field(default=0.0, ge=0, le=100, description="alpha of CutMix; 0: none")
    mix_prob: Share = Field(default=1.0, description="part of the batches that is mixed")
    mix_switch: Share = Field(default=0.5, description="part of the mixed batches that gets CutMix, where both are on")
    auto_augment: str | None = Field(
        default=None,
        pattern=r"^(rand|augmix|originalr?|v0r?|3a)(-[A-Za-z0-9.]+)*$",
        max_length=100,
        description="timm's name of an automatic augmentation, e.g. rand-m9-mstd0.5-inc1",
    )
    color_jitter: float = Field(
        default=0.0, ge=0, le=1, description="of brightness, contrast and saturation; none beside auto_augment"
    )
    random_erasing: Share = Field(default=0.0, description="part of the images in which a box is replaced by noise")
    ema_decay: Part | None = Field(
        default=None, description="decay of the moving average of the weights, which is then what is validated and kept"
    )
    ema_warmup: bool = Field(default=False, description="let that decay rise to its value, 1 - (1 + step)^(-2/3)")
    amp: Amp = Field(
        default="auto", description="number format of the forward pass; auto: bf16 on CUDA, off (float32) on a CPU"
    )
    sync_batchnorm: bool = Field(default=False, description="batch norms take statistics over all processes")

    distillation: Literal["none", "hard", "soft"] = Field(
        default="none", description="learn from a teacher: from its first class (hard), or from all its answers (soft)"
    )
    distillation_weight: Share = Field(default=0.5, description="the teacher's part of the loss, beside the labels'")
    temperature: float = Field(
        default=1.0, gt=0, le=1000, description="by which soft distillation divides the answers of both networks"
    )
    teacher: str | None = Field(
        default=None,
        max_length=1000,
        description="a spec, by name or path, with `teacher_weights`",
    )
    teacher_weights: str | None = Field(default=None, max_length=4096, description="the file of the teacher's weights")
    teacher_names: str = Field(
        default="archdsl", max_length=100, description="whose names that file has: archdsl, timm, huggingface, …"
    )
    label_output: str | None = Field(
        default=None, max_length=200, description="output that learns from the labels; null: the one that is judged"
    )
    teacher_output: str | None = Field(
        default=None,
        max_length=200,
        description="output that learns from the teacher; null: the one that is judged",
    )

    @model_validator(mode="after")
    def _has_a_teacher_to_learn_from(self) -> Recipe:
        if self.teacher is not None and self.distillation == "none":
            message = "`teacher` has no effect without `distillation`: say hard or soft"
            raise broken("wrong-value", message, field="teacher")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a teacher no field of distillation is written: a recipe is what it was before there were any."""
        fields: dict[str, Any] = dump(self)
        if self.distillation != "none":
            return fields
        return {name: value for name, value in fields.items() if name not in DISTILLING}

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed: then labels are no longer single classes."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_prob > 0

    @property
    def augments(self) -> bool:
        """Whether single images are changed beyond cutting and flipping them."""
        return self.auto_augment is not None or self.color_jitter > 0 or self.random_erasing > 0

    def key(self) -> str:
        """The fields that decide the result, as one line. Part of a result's cache key."""
        fields = self.model_dump(exclude={"name"})
        if self.distillation != "none" and self.teacher_weights is not None:
            fields["teacher_weights"] = _contents(self.teacher_weights)
        return " ".join(f"{name}={value}" for name, value in sorted(fields.items()))


if TYPE_CHECKING:
    RECIPES: Mapping[str, Recipe]
    """The recipes that come with archdsl, by name."""


def __getattr__(name: str) -> Any:
    if name == "RECIPES":
        return {stem: _shipped(stem) for stem in shipped_names("recipes")}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _shipped(name: str) -> Recipe:
    return parse_recipe(name)


def parse_recipe(value: str | Mapping[str, Any] | Recipe, place: Place | None = None, **changes: Any) -> Recipe:
    """A recipe from its name, from a YAML file by path, or from a mapping of fields.

    Files and mappings may say `extends: name` (or, in files, a relative path) and then only what differs.

    Args:
        value:   the name of a shipped recipe, the path of a file, or fields
        place:   where the user wrote `value`: the place of problems in a mapping. A path is relative to its file
        changes: fields that win over all others; None: not given
    Raises: SpecError with every problem, each where it was written: `unknown-name`, `unknown-key`, `missing-key`,
            `wrong-type`, `wrong-value`, `out-of-range`, and what reading YAML raises

    Example:
        >>> from archdsl.training import parse_recipe
        >>> parse_recipe("swin").epochs, parse_recipe("swin", epochs=100).epochs
        (300, 100)
        >>> parse_recipe({"extends": "quick", "lr": 1e-3}).lr
        0.001
    """
    place = place or at_argument("--recipe", str(value))
    if isinstance(value, Recipe):
        tree = node_of(value.model_dump(), Mark.at(place))
    elif isinstance(value, str):
        tree = _of_file(value, place)
    else:
        tree = _composed(node_of(dict(value), Mark.at(place)), Home(place.file), Budget())
        tree = _placed(tree, home_of(place.file))
    for key, item in changes.items():
        if item is not None:
            mark = Mark.at(at_argument(f"--{key}", str(item)))
            tree = _with(tree, key, node_of(item, mark), mark)
    return read_fields(Recipe, tree, "a recipe")


def recipe_schema() -> Json:
    """The JSON Schema of recipe files, draft 7, for editors. One that extends another may leave out what that says."""
    definitions: Json = {}
    properties = properties_of(Recipe, definitions)
    required = [name for name, field in Recipe.model_fields.items() if field.is_required()]
    extends = {
        "type": "string",
        "description": "the recipe to build on: a shipped name, or a path relative to this file",
    }
    return {
        "$schema": DRAFT,
        "title": "archdsl recipe",
        "description": "How a network is trained: optimiser, schedule, augmentation and length.",
        "type": "object",
        "properties": {"extends": extends, **properties},
        "additionalProperties": False,
        "anyOf": [{"required": ["extends"]}, {"required": required}],
        "definitions": definitions,
    }


def lr_factor(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate at `step` (0 … steps - 1) as a part of `recipe.lr`.

    cosine: rises linearly to 1 in the warm-up, then falls along half a cosine to `final_lr`.
    one_cycle: the same, but rises along half a cosine too, from 1/25.
    Sources: https://arxiv.org/abs/1608.03983 (cosine), https://arxiv.org/abs/1708.07120 (one cycle; its momentum is
    left alone here).
    """
    rising = round(recipe.warmup * steps)
    if step < rising:
        part = (step + 1) / (rising + 1)
        return part if recipe.schedule == "cosine" else _half_cosine(1 / 25, 1.0, part)
    return _half_cosine(1.0, recipe.final_lr, (step - rising) / max(1, steps - rising))


def with_drop_path(spec: Spec, recipe: Recipe) -> Spec:
    """The spec as `recipe` trains it: the rate rises linearly over all blocks, from 0 to the recipe's `drop_path`.

    Blocks with a rate of their own keep it. Without a rate in the recipe, the spec as it is. At inference both are the
    same network. Source: https://arxiv.org/abs/1603.09382
    """
    if recipe.drop_path is None or recipe.drop_path == spec.drop_path:
        return spec
    return loads(spec.to_yaml(), spec.name, set={"drop_path": recipe.drop_path}, check=False)


class BuildFor:
    """Spec and seed, or weights -> the network that `recipe` trains."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def __call__(self, spec: Spec, *, seed: int, weights: Mapping[str, Any] | None = None) -> nn.Module:
        from archdsl import compiler

        distils = self.recipe.distillation != "none"
        return compiler.build(with_drop_path(spec, self.recipe), weights, training=distils, seed=seed)


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _of_file(text: str, place: Place) -> YamlNode:
    """A shipped recipe or a file: one that a file names must lie in that file's project."""
    budget, home = Budget(), home_of(place.file)
    reference = YamlNode(text, Mark.at(place))
    if home is not None:
        data, found = open_reference(reference, "recipe", "recipes", home, budget)
    elif is_name(text) and not os.path.isfile(text):
        data, found = open_named(text, "recipes", reference.mark, budget)
    else:
        data, found = open_given(text, "recipes", budget)
    tree = _composed(parse(data, found.shown), found, budget)
    if tree.get("name") is None:
        stem = os.path.splitext(os.path.basename(found.shown))[0]
        tree = _with(tree, "name", NameOfFile(stem, tree.mark), tree.mark)
    return tree


def _composed(tree: YamlNode, home: Home, budget: Budget, chain: tuple[Home, ...] = ()) -> YamlNode:
    """A recipe with what it extends under it; `extends` and the name of what it extends are gone."""
    if not tree.is_map:
        raise fail(tree.mark, "wrong-type", f"a recipe is a mapping, but got {shown(tree.plain())}")
    tree, reference = _placed(tree, home), tree.get("extends")
    if reference is None:
        return tree
    chain = (*chain, home)
    if len(chain) > MAX_EXTENDS:
        raise fail(reference.mark, "limit", f"at most {MAX_EXTENDS} recipes may extend one another", path="extends")
    if not isinstance(reference.value, str):
        message = f"`extends` names a recipe, but got {shown(reference.plain())}"
        raise fail(reference.mark, "wrong-type", message, path="extends")
    data, below = open_reference(reference, "extends", "recipes", home, budget)
    if any(step.identity is not None and step.identity == below.identity for step in chain):
        names = " -> ".join(step.shown for step in (*chain, below))
        raise fail(reference.mark, "extends", f"the recipe extends itself: {names}", path="extends")
    base = _composed(parse(data, below.shown), below, budget, chain)
    items = {key: item for key, item in base.value.items() if key != "name"}
    keys = dict(base.keys or {})
    for key, item in tree.value.items():
        if key != "extends":
            items[key], keys[key] = item, tree.key_mark(key)
    return YamlNode.mapping(items, keys, tree.mark)


def _placed(tree: YamlNode, home: Home | None) -> YamlNode:
    """The recipe with the paths of its teacher relative to the folder that it was written in, if that is one."""
    for key in ("teacher", "teacher_weights"):
        node = tree.get(key) if home is not None and home.folder is not None else None
        if node is not None and isinstance(node.value, str) and not (key == "teacher" and is_name(node.value)):
            assert home is not None and home.folder is not None
            tree = _with(tree, key, YamlNode(os.path.join(home.folder, node.value), node.mark), tree.key_mark(key))
    return tree


def _contents(path: str) -> str:
    """What stands for a file in a key: the SHA-256 of its bytes; the path while there is no file to read."""
    try:
        found = os.stat(path)
        return _sha256(path, (found.st_mtime_ns, found.st_size))
    except OSError:
        return path


@lru_cache(maxsize=64)
def _sha256(path: str, _state: tuple[int, int]) -> str:
    """The digest of a file; `_state`, its time of change and size, makes a changed file be read anew."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _with(tree: YamlNode, key: str, value: YamlNode, mark: Mark) -> YamlNode:
    return YamlNode.mapping({**tree.value, key: value}, {**(tree.keys or {}), key: mark}, tree.mark)
