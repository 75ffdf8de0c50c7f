"""What a network learns: the loss, the metric, and what the two require of labels and network.

The loop trains any `Task`. To add one: a file with a class of these methods, and its case in `task_of`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from archdsl.training.tasks.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.training.data import Data
    from archdsl.training.recipe import Recipe


class Task(Protocol):
    """Loss, metric and label checks of one kind of training.

    Shapes: images [B, 3, H, W]; output is what the network answers and targets what the data give beside the images,
            both with the batch on axis 0. `classification`: output [B, outputs], targets [B]

    The metric is computed from counts: numbers that may be summed over batches and over processes.
    """

    @property
    def num_counts(self) -> int:
        """How many numbers `counts` gives."""
        ...

    def mix(self, images: Tensor, targets: Tensor, seed: str) -> tuple[Tensor, Tensor]:
        """A training batch as the network sees it: mixed with itself where the recipe asks for it, else unchanged.

        Args: images: on the CPU, changed in place; seed: the text from which everything random is drawn
        """
        ...

    def check(self, output: Tensor) -> str | None:
        """Whether the network's output suits the labels. -> a note for the result, where it suits them only in part

        Raises: TrainingError when it does not suit them
        """
        ...

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over a batch, a scalar. targets: as `mix` returned them"""
        ...

    def counts(self, output: Tensor, targets: Tensor) -> Tensor:
        """What the metric is computed from, for one validation batch: [num_counts] float64 on the CPU."""
        ...

    def metric(self, counts: Tensor, num_images: int) -> float:
        """The metric of the whole validation set, in [0, 1], higher is better: what `accuracy` means in results.

        Args: counts: the sum of all batches' counts; num_images: the number of images in them, at least 1
        """
        ...

    def metrics(self, counts: Tensor, num_images: int, num_independent: int) -> tuple[Metric, ...]:
        """All that the task tells of a network, `metric` first. Arguments as there.

        num_independent: how many of the images are independent draws; the intervals use it
        """
        ...


def task_of(data: Data, recipe: Recipe | None = None) -> Task:
    """The task that the labels of `data` pose: one class an image. recipe: None where nothing is trained

    Raises: TrainingError (`missing-library`) when the recipe mixes images and timm does not load
    """
    from archdsl.training.tasks.classification import Classification

    return Classification(data.num_classes, recipe)
