"""What is taken from timm: augmentation, mixing and the average of weights. Nothing of it is written again here.

timm needs torchvision. Where either does not load, only the recipes that ask for these parts cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any

from archdsl.training.failures import training_error
from archdsl.training.recipe import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn


def load_timm(part: str, fields: Sequence[str]) -> Any:
    """The module `timm.<part>`.

    fields: of the recipe, for which it is needed. Errors: TrainingError `missing-library`, with the import's own words
    """
    try:
        return import_module(f"timm.{part}")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        wanted = ", ".join(f"`{field}`" for field in fields)
        words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        message = f"{wanted} of the recipe needs timm and torchvision, which do not load here ({words[:300]})"
        if isinstance(error, ModuleNotFoundError):
            hint = "pip install 'archdsl[train]'"
        else:
            hint = "install the torchvision that belongs to this torch, from the same index"
        off = f"or use a recipe without {wanted}, such as `quick`"
        raise training_error("missing-library", message, hint=f"{hint}; {off}") from error


@contextmanager
def seeded(text: str) -> Iterator[None]:
    """The global random numbers of Python, NumPy and torch's CPU from `text` alone; afterwards they are as before.

    timm's augmentations draw from all three, so what they do to an image does not depend on what was drawn elsewhere.
    """
    import random

    import numpy as np
    import torch

    seed = int.from_bytes(sha256(text.encode()).digest()[:8], "little")
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@dataclass(frozen=True)
class Augmentation:
    """What is done to single training images beside cutting and flipping: the fields of the recipe."""

    auto_augment: str | None
    color_jitter: float
    random_erasing: float

    @classmethod
    def of(cls, recipe: Recipe) -> Augmentation | None:
        """None when the recipe asks for nothing of it."""
        return cls(recipe.auto_augment, recipe.color_jitter, recipe.random_erasing) if recipe.augments else None

    @property
    def fields(self) -> list[str]:
        return [name for name in ("auto_augment", "color_jitter", "random_erasing") if getattr(self, name)]


class AugmentedView:
    """PIL image and the text of a seed -> [3, H, W] float32, normalised. Made anew in each process that decodes."""

    def __init__(
        self,
        augmentation: Augmentation,
        image_size: tuple[int, int],
        min_area: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: str = "bicubic",
    ):
        self.augmentation, self.image_size, self.min_area = augmentation, image_size, min_area
        self.mean, self.std, self.interpolation = mean, std, interpolation
        self._transform: Any = None

    def prepare(self) -> None:
        """Errors: TrainingError when timm does not load, or does not know the automatic augmentation."""
        wanted = self.augmentation
        data = load_timm("data", wanted.fields)
        try:
            self._transform = data.create_transform(
                input_size=(3, *self.image_size),
                is_training=True,
                scale=(self.min_area, 1.0),
                auto_augment=wanted.auto_augment,
                color_jitter=wanted.color_jitter or None,
                interpolation=self.interpolation,
                mean=self.mean,
                std=self.std,
                re_prob=wanted.random_erasing,
                re_mode="pixel",
            )
        except (AssertionError, ValueError, KeyError) as error:
            message = f"timm does not know the augmentation {wanted.auto_augment!r} ({type(error).__name__}: {error})"
            hint = "write it like rand-m9-mstd0.5-inc1"
            raise training_error("wrong-value", message, hint=hint, path="auto_augment") from error

    def __call__(self, image: Image, seed: str) -> Tensor:
        if self._transform is None:
            self.prepare()
        with seeded(seed):
            view: Tensor = self._transform(image)
        return view

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_transform": None}


class Mixer:
    """Mixup and CutMix over a batch: image i with image -1 - i, and their labels as shares of classes.

    Sources: https://arxiv.org/abs/1710.09412, https://arxiv.org/abs/1905.04899
    """

    def __init__(self, recipe: Recipe, num_classes: int):
        data = load_timm("data", [name for name in ("mixup", "cutmix") if getattr(recipe, name)])
        self._mix = data.Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mix_prob,
            switch_prob=recipe.mix_switch,
            label_smoothing=recipe.label_smoothing,
            num_classes=num_classes,
        )

    def __call__(self, images: Tensor, labels: Tensor, seed: str) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] (changed in place) and labels [B] -> images, shares [B, classes]. B is even."""
        with seeded(seed):
            mixed, shares = self._mix(images, labels)
        return mixed, shares


def average_of(model: nn.Module, recipe: Recipe) -> Any:
    """timm's moving average of a model's weights and buffers; it starts as a copy of them."""
    utils = load_timm("utils", ["ema_decay"])
    return utils.ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=recipe.ema_warmup)
