"""A network, data and a recipe that train in a second, for tests of several files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from archdsl.errors import Place, Problem, TrainingError
from archdsl.training import Recipe
from archdsl.training.data.synthetic import Pairs
from archdsl.training.processes import share_of

TOY = Recipe(epochs=4, batch=32, lr=1e-2, schedule="one_cycle", warmup=0.2, clip_grad=1.0)


class Bright:
    """Toy data: the class is the channel that is bright."""

    num_classes, image_size, num_train, num_val, num_val_independent = 3, (4, 4), 320, 96, 96

    def key(self) -> str:
        return "bright"

    def _batches(self, num: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(seed)
        for _ in range(num // batch):
            labels = torch.randint(0, 3, (batch,), generator=draw)
            images = torch.randn(batch, 3, 4, 4, generator=draw) * 0.5
            images[torch.arange(batch), labels] += 1.0
            yield images, labels

    def train_batches(
        self, batch: int, *, seed: int, epoch: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._batches(self.num_train, batch, 1000 * seed + epoch):
            ours = share_of(batch, share)
            yield (images, labels) if share == (0, 1) else (images[ours], labels[ours])

    def val_batches(self, batch: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._batches(self.num_val, self.num_val, 77):
            yield images[share[0] :: share[1]], labels[share[0] :: share[1]]


def toy_network(classes: int = 3, seed: int = 0, dropout: float = 0.2, norm: bool = True) -> nn.Module:
    """Convolution, batch norm, dropout, linear: something of each kind of state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = nn.BatchNorm2d(8) if norm else nn.Identity()
        return nn.Sequential(
            nn.Conv2d(3, 8, 2, 2), middle, nn.GELU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(32, classes)
        )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def changed(**fields: Any) -> Recipe:
    return TOY.model_copy(update=fields)


def connects_halves(model: nn.Module, pairs: Pairs, *, num_images: int = 64) -> bool:
    """Whether the network's answer changes when the halves are swapped: if not, its ceiling is 50 %, however trained.

    The other way round it proves only that the order is not lost, not that it will be learnt. Looks at the network in
    evaluation mode; equal means equal to 1e-4 of the largest logit, some hundred times the rounding error of float32.
    """
    images, half = pairs.val[0], pairs.num_val // 2
    was_training = model.training
    with torch.no_grad():
        model.eval()
        plain, swapped = model(images[: min(num_images, half)]), model(images[half:][: min(num_images, half)])
    model.train(was_training)
    return bool((plain - swapped).abs().max() > 1e-4 * plain.abs().max())


class Refusing:
    """A view of images that no library here can make."""

    def __call__(self, image: Any, seed: str) -> Any:
        raise TrainingError(Problem(Place("training"), "missing-library", "the library is missing", "install it"))
