"""Accuracies that were trained once and stored in a table, so that a search can be replayed in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Protocol

from archdsl.evaluators.agreement import RankAgreement
from archdsl.evaluators.protocol import Kind
from archdsl.language.architecture.model import Spec
from archdsl.training.outcome import Accuracy


class AccuracyTable(Protocol):
    """The part of a table that the evaluator looks at. tasks: name -> `epochs`, `num_val_independent`, …"""

    @property
    def name(self) -> str: ...
    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]: ...


class AccuracyRow(Protocol):
    """One network of a table. accuracies: task -> seed -> validation accuracy after each epoch, in [0, 1]"""

    @property
    def index(self) -> int: ...
    @property
    def accuracies(self) -> Mapping[str, Mapping[int, tuple[float, ...]]]: ...


class TabularEvaluator:
    """An evaluator that looks accuracies up instead of training, after any epoch.

    Args:
        table: where the accuracies are from
        task:  the name of one of its tasks: a data set and a recipe
        seeds: the seeds whose mean is given
        rows:  the row of each network by the spec's name
    """

    name = "table"
    kind: Kind = "train"
    agreement: RankAgreement | None = None

    def __init__(self, table: AccuracyTable, task: str, seeds: Sequence[int], rows: Mapping[str, AccuracyRow]):
        self.table, self.task, self.seeds, self.rows = table, task, tuple(seeds), rows
        self._done: dict[int, int] = {}

    @property
    def epochs(self) -> int:
        """The length of the task's schedule."""
        return int(self.table.tasks[self.task]["epochs"])

    def __call__(self, spec: Spec, *, seed: int = 0) -> Accuracy:
        return self.advance(spec, seed=seed, to_epoch=self.epochs)

    def advance(self, spec: Spec, *, seed: int = 0, to_epoch: int) -> Accuracy:
        """The accuracy that the real training had after this epoch; paid epochs are those not looked up before."""
        del seed  # a table's seeds are those it was made with
        row, task = self.rows[spec.name], self.table.tasks[self.task]
        values = tuple(row.accuracies[self.task][one][to_epoch - 1] for one in self.seeds)
        before = self._done.get(row.index, 0)
        self._done[row.index] = max(before, to_epoch)
        return Accuracy(
            mean=fmean(values),
            sd=stdev(values) if len(values) > 1 else None,
            values=values,
            seeds=self.seeds,
            num_val=2 * int(task["num_val_independent"]),
            num_val_independent=int(task["num_val_independent"]),
            epochs=to_epoch,
            seconds=0.0,
            reused=len(values),
            data=f"table {self.table.name}",
            recipe=self.task,
            of_epochs=self.epochs,
            paid_epochs=len(values) * max(0, to_epoch - before),
        )

    def discard(self, spec: Spec, *, seed: int = 0) -> None:
        """Nothing is kept."""
