"""What a training came to: its epochs, its result, and the accuracy over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from archdsl.json_fields import JsonFields

if TYPE_CHECKING:
    from archdsl.training.recipe import Recipe


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    number:       counted from 1
    train_loss:   the mean over its steps
    val_accuracy: the task's metric on the validation set, in [0, 1]
    seconds:      wall time of its training and validation
    lr:           the learning rate of its last step
    """

    number: int
    train_loss: float
    val_accuracy: float
    seconds: float
    lr: float = 0.0


@dataclass(frozen=True)
class TrainingResult:
    """The result of one training run with one seed.

    accuracy:            on the validation set after the last epoch, never the best of all epochs; in [0, 1]
    num_val:             validation images that were read
    num_val_independent: how many of them are independent draws
    epochs:              epochs trained, over all resumed parts
    seconds:             wall time of these epochs
    stopped_early:       whether it ended before the recipe did
    notes:               what was done otherwise than asked, each a sentence: a smaller batch, files that were skipped
    """

    accuracy: float
    num_val: int
    num_val_independent: int
    epochs: int
    seconds: float
    stopped_early: bool
    history: tuple[Epoch, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accuracy(JsonFields):
    """Accuracy on a validation set after real training (top-1 for classification), over one or more seeds.

    mean, values:        over `seeds`, and of each of them, in [0, 1]
    sd:                  sample standard deviation of `values`; None for one seed
    num_val:             validation images, of which `num_val_independent` are independent draws
    epochs:              epochs trained
    seconds:             wall time of all these trainings, when they were done
    reused:              how many of them were found in the store of results
    data, recipe:        what was trained on, and how
    of_epochs:           length of the schedule, of which `epochs` may be only a part; None: all of it
    paid_epochs:         epochs trained by this call, over all seeds
    notes:               what was done otherwise than asked, and what was skipped
    origins:             for each training that another search has done: the folder of that search

    Example:
        >>> accuracy = Accuracy(0.75, None, (0.75,), (0,), 400, 400, 1, seconds=2.0, reused=0, data="d", recipe="r")
        >>> round(accuracy.standard_error, 4)
        0.0216
    """

    mean: float
    sd: float | None
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    num_val: int
    num_val_independent: int
    epochs: int
    seconds: float
    reused: int
    data: str
    recipe: str
    of_epochs: int | None = None
    paid_epochs: int | None = None
    notes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether the schedule was followed to its end."""
        return self.of_epochs is None or self.epochs >= self.of_epochs

    @property
    def standard_error(self) -> float:
        """One standard error of `mean`, on the safe side.

        sqrt(p(1 - p) / n + sd^2 / seeds): the binomial error of n independent validation images, which all seeds share,
        and the spread over seeds. p has two right and two wrong answers added, so that 100 % is not error-free (Agresti
        and Coull 1998). With one seed the spread is unknown and left out: then it is a lower bound.
        """
        n = self.num_val_independent
        p = (self.mean * n + 2) / (n + 4)
        between_seeds = self.sd**2 / len(self.seeds) if self.sd is not None else 0.0
        return sqrt(p * (1 - p) / (n + 4) + between_seeds)

    def as_json(self) -> dict[str, Any]:
        """Its fields and `standard_error` as plain data, which `from_json` reads."""
        return {**super().as_json(), "standard_error": self.standard_error}

    def __str__(self) -> str:
        over = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        length = f"{self.epochs}" if self.is_final else f"{self.epochs} of {self.of_epochs}"
        epochs = f"{length} epoch{'' if length == '1' else 's'}"
        return f"{self.mean:.3f} ± {self.standard_error:.3f} ({over}, {self.data}, {epochs})"


def accuracy_of_run(
    run: Mapping[str, Any], *, seed: int, data: str, recipe: Recipe, reused: int, paid_epochs: int
) -> Accuracy:
    """The accuracy of one training run with one seed. run: the fields of its `TrainingResult`, which may be stored"""
    return Accuracy(
        mean=float(run["accuracy"]),
        sd=None,
        values=(float(run["accuracy"]),),
        seeds=(seed,),
        num_val=int(run["num_val"]),
        num_val_independent=int(run["num_val_independent"]),
        epochs=int(run["epochs"]),
        seconds=float(run["seconds"]),
        reused=reused,
        data=data,
        recipe=recipe.name,
        of_epochs=recipe.epochs,
        paid_epochs=paid_epochs,
        notes=tuple(run.get("notes", ())),
        origins=(str(run["origin"]),) if reused and "origin" in run else (),
    )


def combined(runs: Sequence[Accuracy]) -> Accuracy:
    """One accuracy over all seeds of `runs`, which are of one network, data and recipe."""
    values = tuple(value for run in runs for value in run.values)
    return replace(
        runs[0],
        mean=fmean(values),
        sd=stdev(values) if len(values) > 1 else None,
        values=values,
        seeds=tuple(seed for run in runs for seed in run.seeds),
        seconds=sum(run.seconds for run in runs),
        reused=sum(run.reused for run in runs),
        paid_epochs=sum(run.paid_epochs or 0 for run in runs),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
        origins=tuple(origin for run in runs for origin in run.origins),
    )
