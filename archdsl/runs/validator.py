"""Validates a network by its answers: data opened as it sees them, and the task's metrics over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archdsl.errors import TrainingError
from archdsl.failures import failed
from archdsl.outside_text import printable
from archdsl.runs.trained_on import TrainingData
from archdsl.training.data import Data, DataSource
from archdsl.training.data.source import ImageSource
from archdsl.training.tasks import task_of
from archdsl.training.tasks.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.backends.initial import Array

Answer = Callable[["Tensor"], "Tensor"]
"""Images [B, C, H, W] -> what the network answers, [B, …]."""

Seen = Callable[[int, int, float], None]
"""Called with the images so far, all images, and the task's first metric by then."""

SMALL_PIXELS, MANY_AT_ONCE, FEW_AT_ONCE = 64 * 64, 64, 16
"""How many images are validated at once: many up to so many pixels, else few."""

DECODED_HERE = 256
"""Up to so many images, starting processes that decode takes longer than decoding."""

CALIBRATED_ON = 64
"""Images from which int8 and fp8 take their ranges."""

FEW = 8
"""Class names that a message shows."""


@dataclass(frozen=True)
class Scores:
    """The task's metrics over the validation images. metrics: the one that `accuracy` means first"""

    metrics: tuple[Metric, ...]
    num_images: int
    num_independent: int
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "accuracy": self.metrics[0].value,
            "metrics": [metric.as_json() for metric in self.metrics],
            "num_images": self.num_images,
            "num_independent": self.num_independent,
        }


class Validator:
    """The validation images of a source, as a network sees them that was trained on `trained_on`.

    size, channels: of the images that it takes; num_outputs: how many classes it can answer; None: not known
    notes: what is otherwise than in training, in sentences

    Raises: TrainingError: `classes` when network and data do not have the same, and what opening the data raises
    """

    def __init__(
        self,
        source: DataSource,
        trained_on: TrainingData,
        size: tuple[int, int],
        channels: int,
        num_outputs: int | None,
    ):
        self.notes: list[str] = []
        self.text = source.text()
        if trained_on.preprocessing is not None and isinstance(source, ImageSource):
            source, self.notes = source.shown_as(trained_on.preprocessing)
        self.data: Data = source.open(size, channels)
        few = self.data.num_val <= DECODED_HERE
        if few and isinstance(source, ImageSource) and "workers" not in source.model_fields_set:
            self.data = source.model_copy(update={"workers": 0}).open(size, channels)
        self.places = self._places(trained_on, num_outputs)
        self.task = task_of(self.data)

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """How a validation image becomes what the network sees; None where there are no pixels."""
        return getattr(self.data, "preprocessing", None)

    def some_to_train_on(self) -> Array:
        """Images to take the ranges of int8 and fp8 from, [N, C, H, W]: none of those that are validated on."""
        found: Array = self.data.sample(CALIBRATED_ON).numpy()
        return found

    @property
    def usual_batch(self) -> int:
        """Images at once, where nobody says it."""
        height, width = self.data.image_size
        return MANY_AT_ONCE if height * width <= SMALL_PIXELS else FEW_AT_ONCE

    def __call__(self, answer: Answer, batch: int, seen: Seen | None = None) -> Scores:
        """Run all validation images through `answer`, `batch` at once.

        seen: called after each batch
        Raises: MeasureError (`not-finite`); TrainingError: `classes` when the answers are no such classes, `no-images`
        """
        import torch

        from archdsl.training.validation import counted

        notes: list[str] = []

        def checked(images: Tensor) -> Tensor:
            output = answer(images)
            if not notes:
                notes.append(self.task.check(output) or "")
            return output

        def tell(found: Tensor) -> None:
            counts, num = found[:-1], int(found[-1])
            if seen is not None and bool(torch.isfinite(counts).all()):
                seen(num, self.data.num_val, self.task.metric(counts, num))

        found = counted(self._batches(batch), checked, self.task, tell)
        counts, num = found[:-1], int(found[-1])
        if num == 0:
            hint = "check the files"
            raise TrainingError.at("--data", self.text, "no-images", "not one validation image could be read", hint)
        if not math.isfinite(float(counts.sum())):
            message = "the network's output holds numbers that are not finite"
            raise failed("not-finite", message, where="network", hint="try --precision fp32; it may be the weights")
        independent = max(1, round(num * self.data.num_val_independent / max(1, self.data.num_val)))
        metrics = self.task.metrics(counts, num, independent)
        notes += getattr(self.data, "notes", ())
        return Scores(metrics, num, independent, tuple(filter(None, notes)))

    def _batches(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        places = None if self.places is None else torch.tensor(self.places)
        for images, targets in self.data.val_batches(batch):
            yield images, targets if places is None else places[targets]

    def _places(self, trained_on: TrainingData, num_outputs: int | None) -> list[int] | None:
        """The output of each of the data's classes, where the network has them in another order. Errors: `classes`"""
        theirs, ours = [printable(name) for name in self.data.classes], trained_on.classes
        if ours is None and num_outputs in (None, self.data.num_classes):
            return None
        if ours is not None and sorted(ours) == sorted(theirs):
            return None if list(ours) == theirs else [ours.index(name) for name in theirs]
        if ours is None:
            known = f"the network answers {num_outputs} classes, whose names are not known"
            message = f"{known}; the data have {self.data.num_classes} ({_named(theirs)})"
        else:
            message = (
                f"the network answers {len(ours)} classes, as {trained_on.said_by} says; the data have {len(theirs)}"
            )
            for who, names, others in (("the network has", ours, theirs), ("the data have", theirs, ours)):
                if alone := [name for name in names if name not in set(others)]:
                    message += f"; only {who} {_named(alone)}"
        hint = "give data of the network's classes, or train it for these: archdsl train … --weights … --new-head"
        raise TrainingError.at("--data", self.text, "classes", message, hint)


def scoring(
    validator: Validator, seen: Callable[[int, int, float], None]
) -> Callable[[Callable[[Array], Array]], dict[str, Any]]:
    """The validator as builds take it: of what answers arrays"""

    def score(answer: Callable[[Array], Array]) -> dict[str, Any]:
        import torch

        found = validator(lambda images: torch.from_numpy(answer(images.numpy())), validator.usual_batch, seen)
        return found.as_json()

    return score


def _named(classes: Sequence[str]) -> str:
    """`ant, bee, fly, …`."""
    return ", ".join([*classes[:FEW], *(["…"] if len(classes) > FEW else [])]) or "no names"
