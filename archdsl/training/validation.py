"""The metric of a network on the validation set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from archdsl.training.data import Data
from archdsl.training.distillation import judged
from archdsl.training.failures import explained_out_of_memory, training_error
from archdsl.training.memory import is_out_of_memory
from archdsl.training.mixed_precision import MixedPrecision
from archdsl.training.processes import Processes
from archdsl.training.tasks import Task

VAL_BATCH = 512
VAL_BATCH_LARGE = 64  # of images larger than 64x64


@torch.no_grad()
def validate(
    model: nn.Module, data: Data, task: Task, precision: MixedPrecision, processes: Processes
) -> tuple[float, int]:
    """The task's metric over the whole validation set, and how many images it was computed from.

    Each process takes its share; all get the result of all. The metric is NaN when an output is not a finite number.
    Raises: TrainingError: `no-images` when none could be read; `out-of-memory` when a single one does not fit
    """
    model.eval()
    height, width = data.image_size
    batch = VAL_BATCH if height * width <= 64 * 64 else VAL_BATCH_LARGE
    share = {"share": processes.share} if processes.num > 1 else {}
    found = counted(data.val_batches(batch, **share), lambda images: _answered(model, images, precision), task)
    found = processes.total(found.to(processes.exchange_device(precision.device))).cpu()
    counts, seen = found[:-1], int(found[-1])
    if not bool(torch.isfinite(counts).all()):
        return math.nan, seen
    if seen == 0:
        raise training_error("no-images", "not one image of the validation set could be read", hint="check the files")
    return task.metric(counts, seen), seen


def counted(
    batches: Iterable[tuple[Tensor, Tensor]],
    answer: Callable[[Tensor], Tensor],
    task: Task,
    seen: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """The task's counts over all batches and, last, the number of images: [num_counts + 1] float64.

    Counts are NaN when an output is not finite.

    Args: answer: images [B, C, H, W] -> the network's output; seen: called after each batch with the counts so far
    """
    found = torch.zeros(task.num_counts + 1, dtype=torch.float64)
    for images, targets in batches:
        output = answer(images)
        found[:-1] += task.counts(output, targets) if bool(torch.isfinite(output).all()) else math.nan
        found[-1] += len(images)
        if seen is not None:
            seen(found)
    return found


def _answered(model: nn.Module, images: Tensor, precision: MixedPrecision) -> Tensor:
    """The network's output for some images. In halves, where memory is short."""
    with explained_out_of_memory():
        try:
            with precision.autocast():
                return judged(model(images.to(precision.device)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(images) == 1:
                raise
    half = len(images) // 2
    return torch.cat([_answered(model, part, precision) for part in (images[:half], images[half:])])
