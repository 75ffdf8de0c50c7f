"""How a network is trained, as plain fields: a few named recipes, and what a user changes in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from archdsl.errors import Place, Problem, SpecError, at_argument
from archdsl.training.fields import read_fields, unknown_name

Part = Annotated[float, Field(ge=0, lt=1)]


class Recipe(BaseModel):
    """Optimiser, schedule and length of a training run. The seed is not in it: it belongs to the run.

    init: `built` starts from the weights that the network was built with; `fan_in` draws them anew from the run's seed
    at a scale that suits narrow networks (see training/initial.py).
    Weight decay is never applied to norms, biases, relative position tables and position embeddings. The learning rate
    at each step is `lr * lr_factor(step, …)`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str = Field(default="custom", description="shown in reports; does not change the training")
    init: Literal["built", "fan_in"] = Field(
        default="built", description="first weights: the network's own, or drawn anew"
    )
    epochs: int = Field(ge=1, le=100_000, description="passes through the training set")
    batch: int = Field(ge=1, le=1_000_000, description="images a step")
    optimizer: Literal["adamw"] = "adamw"
    lr: float = Field(gt=0, le=100, description="highest learning rate")
    betas: tuple[Part, Part] = Field(default=(0.9, 0.999), strict=False, description="AdamW's decay of its two moments")
    weight_decay: float = Field(default=0.05, ge=0, le=100)
    schedule: Literal["one_cycle", "cosine"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="part of all steps in which the learning rate rises")
    final_lr: float = Field(default=0.0, ge=0, le=1, description="learning rate at the end, as a part of `lr`")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_grad: float | None = Field(
        default=None, gt=0, description="largest norm of all gradients together; null: no limit"
    )

    def key(self) -> str:
        """The fields that decide the result, as one line. Part of a result's cache key."""
        return " ".join(f"{name}={value}" for name, value in sorted(self.model_dump(exclude={"name"}).items()))


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # Micro networks on the synthetic data: seconds on a CPU. Found by experiment.
        Recipe(
            name="quick",
            init="fan_in",
            epochs=2,
            batch=32,
            lr=4e-3,
            schedule="one_cycle",
            warmup=0.2,
            clip_grad=1.0,
        ),
        # The optimiser and schedule of Swin (https://arxiv.org/abs/2103.14030, A2.1, and its released config) without
        # its augmentation: no RandAugment, mixup, cutmix or random erasing, so expect to overfit earlier than it did.
        Recipe(
            name="swin",
            epochs=300,
            batch=1024,
            lr=1e-3,
            weight_decay=0.05,
            schedule="cosine",
            warmup=20 / 300,
            final_lr=0.01,
            label_smoothing=0.1,
            clip_grad=5.0,
        ),
    )
}


def parse_recipe(value: str | Mapping[str, Any] | Recipe, place: Place | None = None, **changes: Any) -> Recipe:
    """A recipe from its name, or from a mapping of fields, which may say `extends: name` and then only what differs.

    changes: fields that win over both (`epochs=5`); None means not given
    Raises SpecError: unknown-name, unknown-key, missing-key, wrong-type, out-of-range.
    """
    place = place or at_argument("--recipe", str(value))
    if isinstance(value, Recipe):
        fields: dict[str, Any] = value.model_dump()
    elif isinstance(value, str):
        fields = _named(value, place).model_dump()
    else:
        fields = dict(value)
        base = fields.pop("extends", None)
        if base is not None and not isinstance(base, str):
            raise SpecError(Problem(place, "wrong-type", f"`extends` names a recipe, but got {base!r}", path="extends"))
        fields = {**(_named(base, place).model_dump(exclude={"name"}) if base else {}), **fields}
    return read_fields(Recipe, {**fields, **{k: v for k, v in changes.items() if v is not None}}, place)


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


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _named(name: str, place: Place) -> Recipe:
    if name not in RECIPES:
        raise unknown_name("recipe", name, list(RECIPES), place)
    return RECIPES[name]
