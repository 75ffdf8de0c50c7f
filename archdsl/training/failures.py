"""What torch raises during a training, as errors with a rule and a hint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from archdsl.errors import Place, Problem, TrainingError


def training_error(rule: str, message: str, *, hint: str | None = None, path: str | None = None) -> TrainingError:
    """An error of the training itself, which has no place in a file; path: of the recipe's field that it is about."""
    return TrainingError(Problem(Place("training"), rule, message, hint, path))


@contextmanager
def explained_out_of_memory() -> Iterator[None]:
    """Raises: TrainingError (`out-of-memory`) in place of a failed allocation that nothing can be done about"""
    from archdsl.training.memory import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        message = f"the training ran out of memory: {words}"
        raise training_error("out-of-memory", message, hint="use a smaller micro-batch") from error


@contextmanager
def explained_lost_workers(data: Any) -> Iterator[None]:
    """Raises: TrainingError (`worker-lost`) when a process that decodes images has died, which torch raises anywhere"""
    try:
        yield
    except RuntimeError as error:
        words = str(error).splitlines()[0][:200] if str(error) else ""
        if not words.startswith("DataLoader worker"):
            raise
        if hasattr(data, "close"):
            data.close()  # the next pass starts new ones
        message = f"a process that decodes images has ended, which the system may do when memory is short: {words}"
        raise training_error("worker-lost", message, hint="use fewer --workers, or a smaller batch") from error


@contextmanager
def explained_small_batches(num_images: int) -> Iterator[None]:
    """Raises: TrainingError (`batch`) when a batch norm gets one number a channel, from which it can learn nothing"""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        message = f"a batch norm over single positions has nothing to learn from {num_images} image at once"
        hint = "let more images through at once (a larger --micro-batch or batch), or use norm: layer"
        raise training_error("batch", message, hint=hint) from error
