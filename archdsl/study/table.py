"""A tabular benchmark: every network of a space, really trained and timed once, so that a whole search can be replayed
in milliseconds. `benchmarks/make_table.py` makes the table that ships.

A study on a table runs the real campaign: only the training and the timing are looked up. So samplers and stopping
rules can be compared over hundreds of seeds, on real numbers, and by anybody.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from archdsl.errors import Place, Problem, StudyError, at_argument
from archdsl.latency import Timing
from archdsl.spec.model import Spec
from archdsl.spec.space import Space
from archdsl.spec.words import did_you_mean, joined
from archdsl.study.candidate import Assessor, Bounds, Candidate, Foreseen
from archdsl.study.halving import Halving
from archdsl.study.hypervolume import costs, hypervolume, nondominated
from archdsl.study.objectives import Objective
from archdsl.training import Accuracy
from archdsl.training.agreement import RankAgreement
from archdsl.training.evaluator import Kind

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Row:
    """One network.

    options: label of each knob's option, of the first setting that gives the network; counts are for one image
    latency_ms: median over the passes, low_ms and high_ms the smallest and largest of them
    accuracies: task -> seed -> validation accuracy after each epoch
    """

    index: int
    hash: str
    options: Mapping[str, str]
    params: int
    macs: int
    latency_ms: float
    low_ms: float
    high_ms: float
    accuracies: Mapping[str, Mapping[int, tuple[float, ...]]]

    def accuracy(self, task: str, *, seeds: Sequence[int] | None = None, epoch: int | None = None) -> float:
        """The mean over seeds (by default all) after an epoch (by default the last; the first is 1)."""
        runs = self.accuracies[task]
        return fmean(runs[seed][-1 if epoch is None else epoch - 1] for seed in (runs if seeds is None else seeds))

    def value(self, name: str, task: str) -> float:
        """What is behind an objective: accuracy (mean over all seeds), latency, params or macs."""
        if name == "accuracy":
            return self.accuracy(task)
        known: dict[str, float] = {"latency": self.latency_ms, "params": self.params, "macs": self.macs}
        return known[name]


@dataclass(frozen=True, eq=False)
class Table:
    """All networks of one space.

    knobs: name -> labels of its options; settings: for each setting of the space, in its order, the network's row
    tasks: name -> how the accuracies were taken; about: everything else that the sidecar tells
    """

    name: str
    rows: tuple[Row, ...]
    knobs: Mapping[str, tuple[str, ...]]
    settings: tuple[int, ...]
    tasks: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any]

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> Table:
        """A shipped table by its name, or one in a folder. Errors: StudyError when it is not there or damaged"""
        folder = folder or shipped_tables()
        path, sidecar = folder / f"{name}.csv.gz", folder / f"{name}.json"
        if not (path.is_file() and sidecar.is_file()):
            known = sorted(file.name.removesuffix(".csv.gz") for file in folder.glob("*.csv.gz"))
            message, there = f"there is no table `{name}`", ", ".join(known) or "none"
            hint = joined(did_you_mean(name, known), f"Tables: {there}.")
            raise StudyError(Problem(at_argument("table", name), "unknown-name", message, hint))
        try:
            about = json.loads(sidecar.read_text())
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT}")
            with gzip.open(path, "rt", newline="") as file:
                lines = list(csv.DictReader(file))
            knobs = {str(knob): tuple(labels) for knob, labels in about["knobs"].items()}
            rows = tuple(_row(index, line, knobs, about["tasks"]) for index, line in enumerate(lines))
            table = cls(about["name"], rows, knobs, tuple(about["settings"]), about["tasks"], about)
            if len(table.settings) != prod(map(len, knobs.values())) or set(table.settings) != set(range(len(rows))):
                raise ValueError("its settings and its networks do not fit together")
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"the table is damaged: {str(error)[:200] or type(error).__name__}"
            hint = "install archdsl anew, or make the table anew with benchmarks/make_table.py"
            raise StudyError(Problem(Place(str(path)), "damaged-table", message, hint)) from error
        return table

    def row(self, picks: Mapping[str, int]) -> Row:
        """The network of a setting."""
        index = 0
        for name, labels in self.knobs.items():
            index = index * len(labels) + picks[name]
        return self.rows[self.settings[index]]

    def values(self, task: str, objectives: Sequence[Objective]) -> list[list[float]]:
        """The true values of all networks, in the order of the rows."""
        return [[row.value(objective.name, task) for objective in objectives] for row in self.rows]

    def front(self, task: str, objectives: Sequence[Objective]) -> tuple[Row, ...]:
        """The networks that no other beats."""
        best = nondominated([costs(values, objectives) for values in self.values(task, objectives)])
        return tuple(row for row, is_best in zip(self.rows, best, strict=True) if is_best)

    def reference(self, task: str, objectives: Sequence[Objective]) -> list[float]:
        """The worst value of all networks in each objective: where hypervolumes of this table end."""
        return [
            max(column, key=lambda value, sign=objective.sign: sign * value)  # type: ignore[misc]
            for objective, column in zip(objectives, zip(*self.values(task, objectives), strict=True), strict=True)
        ]

    def hypervolume(self, rows: Sequence[Row], task: str, objectives: Sequence[Objective]) -> float:
        """The hypervolume of some networks by their true values, as a share of that of all."""
        worst = costs(self.reference(task, objectives), objectives)

        def volume(some: Sequence[Row]) -> float:
            points = [costs([row.value(o.name, task) for o in objectives], objectives) for row in some]
            return hypervolume(points, worst)

        return volume(rows) / volume(self.rows)

    def refuse_other(self, space: Space) -> None:
        """Raise StudyError unless the space is the one whose networks are in this table."""
        there = {knob.name: knob.options for knob in space.knobs}
        if there != dict(self.knobs) or list(there) != list(self.knobs):
            other = next((name for name in {**there, **self.knobs} if there.get(name) != self.knobs.get(name)), "order")
            message = f"the table `{self.name}` is of another space: the choices of `{other}` differ"
            raise StudyError(Problem(space.locate("choices"), "other-space", message, "search the table's own space"))


class TabularTraining:
    """An evaluator, and one that can go on where it stopped, that looks accuracies up.

    rows: the network of each spec, by the spec's name; seeds: whose mean is given
    """

    name = "table"
    kind: Kind = "train"
    agreement: RankAgreement | None = None

    def __init__(self, table: Table, task: str, seeds: Sequence[int], rows: Mapping[str, Row]):
        self.table, self.task, self.seeds, self.rows = table, task, tuple(seeds), rows
        self._done: dict[int, int] = {}

    @property
    def epochs(self) -> int:
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


class TabularAssessor(Assessor):
    """Looks up in a table what an `Assessor` would measure and train.

    task: a name of the table's tasks; seeds: whose mean is seen, by default the table's first two
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        table: Table,
        *,
        task: str,
        seeds: Sequence[int] | None = None,
        constraints: Mapping[str, Bounds] | None = None,
        halving: Halving | None = None,
    ):
        table.refuse_other(space)
        self.whole, self.table, self.task = space, table, task
        self.seeds = tuple(table.tasks[task]["seeds"][:2] if seeds is None else seeds)
        self._rows: dict[str, Row] = {}
        self._specs: dict[int, Spec] = {}
        training = TabularTraining(table, task, self.seeds, self._rows)
        how: dict[str, Any] = {"latency": self._timing, "accuracy": training, "halving": halving}
        super().__init__(space, objectives, constraints=constraints, **how)

    def candidate(self, picks: Mapping[str, int]) -> Candidate:
        row = self.table.row(picks)
        if row.index not in self._specs:
            spec = self._specs[row.index] = self.whole.spec(picks, name=f"{self.table.name}_{row.index:03d}")
            self._rows[spec.name] = row
        return Candidate(dict(picks), self._specs[row.index], row.hash, row.params, row.macs)

    def foresee(self, picks: Mapping[str, int]) -> Foreseen:
        """All but the accuracy."""
        row = self.table.row(picks)
        return Foreseen(row.hash, {"params": row.params, "macs": row.macs, "latency": row.latency_ms})

    def _timing(self, spec: Spec) -> Timing:
        row, taken = self._rows[spec.name], self.table.about["latency"]
        return Timing(
            median_ms=row.latency_ms,
            ci_low_ms=row.low_ms,
            ci_high_ms=row.high_ms,
            p5_ms=row.low_ms,
            p95_ms=row.high_ms,
            p99_ms=row.high_ms,
            runs=taken["passes"],
            warmup=0,
            runtime=taken["target"]["runtime"],
            runtime_version=taken["runtime_version"],
            device=taken["target"]["device"],
            device_name=taken["device_name"],
            precision=taken["target"]["precision"],
            batch=taken["target"]["batch"],
            threads=taken["target"]["threads"],
            environment={},
            cores=None,
            clock_state="unlocked",
            cpu_wall_ratio=1.0,
            load_average=0.0,
            busy_neighbours=None,
            contended=False,
            contention=None,
            drift=None,
            outliers=0,
            graph_hash=row.hash,
            date=f"{self.table.about['written']}T00:00:00Z",
        )


def shipped_tables() -> Path:
    """Where the tables lie that come with archdsl: in the wheel, or in the checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_data" / "tables"
    return inside if inside.is_dir() else package.parent / "benchmarks" / "tables"


def _row(
    index: int, line: Mapping[str, str], knobs: Mapping[str, Sequence[str]], tasks: Mapping[str, Mapping[str, Any]]
) -> Row:
    accuracies = {
        task: {
            seed: tuple(float(line[f"{task}_s{seed}_e{epoch}"]) for epoch in range(1, how["epochs"] + 1))
            for seed in how["seeds"]
        }
        for task, how in tasks.items()
    }
    return Row(
        index,
        line["network"],
        {name: line[name] for name in knobs},
        int(line["params"]),
        int(line["macs"]),
        float(line["latency_ms"]),
        float(line["low_ms"]),
        float(line["high_ms"]),
        accuracies,
    )
