"""What a training run came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. number counts from 1; train_loss is the mean over its steps; seconds is wall time.

    lr: the learning rate of its last step
    """

    number: int
    train_loss: float
    val_accuracy: float
    seconds: float
    lr: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A training run: accuracy after the last epoch on the validation set, never the best of all epochs.

    stopped_early: it ended before the recipe did
    notes: what was done otherwise than asked, each a sentence: a smaller batch, files that could not be read
    """

    accuracy: float
    num_val: int
    num_val_independent: int
    epochs: int
    seconds: float
    stopped_early: bool
    history: tuple[Epoch, ...]
    notes: tuple[str, ...] = ()
