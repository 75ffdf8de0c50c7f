"""A tabular benchmark: every network of a space, trained and measured once, so that a search runs in milliseconds.

`benchmarks/make_table.py` makes the table that ships. A study on a table runs the real campaign; only the training and
the measurement are looked up. So samplers and stopping rules can be compared over hundreds of seeds, on real numbers,
and by anybody.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

from archdsl.errors import Place, Problem, StudyError
from archdsl.evaluators.tabular import TabularEvaluator
from archdsl.language.architecture.model import Spec
from archdsl.language.space.space import Space
from archdsl.language.text.words import joined
from archdsl.latency import Timing
from archdsl.study.candidate import Assessor, Candidate, KnownCosts
from archdsl.study.early_stopping import SuccessiveHalving
from archdsl.study.hypervolume import costs, hypervolume, non_dominated
from archdsl.study.objectives import Objective
from archdsl.study.scoring import Bounds
from archdsl.suggestions import did_you_mean

FORMAT = 1


@dataclass(frozen=True, eq=False)
class TableRow:
    """One network.

    options: label of each choice's option, of the first assignment that gives the network; counts are for one image
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
        """The true value of an objective: accuracy (mean over all seeds), latency, params or macs."""
        if name == "accuracy":
            return self.accuracy(task)
        known: dict[str, float] = {"latency": self.latency_ms, "params": self.params, "macs": self.macs}
        return known[name]


@dataclass(frozen=True, eq=False)
class Table:
    """All networks of one space.

    choices: name -> labels of its options; settings: for each assignment of the space, in its order, the network's row
    tasks: name -> how the accuracies were measured; about: the whole content of the sidecar file

    Example:
        >>> table = Table.load("quickstart")
        >>> len(table.rows)
        216
    """

    name: str
    rows: tuple[TableRow, ...]
    choices: Mapping[str, tuple[str, ...]]
    settings: tuple[int, ...]
    tasks: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any]

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> Table:
        """A shipped table by its name, or one in a folder. Raises: StudyError when it is missing or damaged"""
        folder = folder or shipped_tables()
        path, sidecar = folder / f"{name}.csv.gz", folder / f"{name}.json"
        if not (path.is_file() and sidecar.is_file()):
            known = sorted(file.name.removesuffix(".csv.gz") for file in folder.glob("*.csv.gz"))
            message, there = f"there is no table `{name}`", ", ".join(known) or "none"
            hint = joined(did_you_mean(name, known), f"Tables: {there}.")
            raise StudyError.at("table", name, "unknown-name", message, hint)
        try:
            about = json.loads(sidecar.read_text())
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT}")
            with gzip.open(path, "rt", newline="") as file:
                lines = list(csv.DictReader(file))
            choices = {str(choice): tuple(labels) for choice, labels in about["knobs"].items()}
            rows = tuple(_row(index, line, choices, about["tasks"]) for index, line in enumerate(lines))
            table = cls(about["name"], rows, choices, tuple(about["settings"]), about["tasks"], about)
            if len(table.settings) != prod(map(len, choices.values())) or set(table.settings) != set(range(len(rows))):
                raise ValueError("its settings and its networks do not fit together")
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"the table is damaged: {str(error)[:200] or type(error).__name__}"
            hint = "install archdsl anew, or make the table anew with benchmarks/make_table.py"
            raise StudyError(Problem(Place(str(path)), "damaged-table", message, hint)) from error
        return table

    def row(self, assignment: Mapping[str, int]) -> TableRow:
        """The network of an assignment."""
        index = 0
        for name, labels in self.choices.items():
            index = index * len(labels) + assignment[name]
        return self.rows[self.settings[index]]

    def values(self, task: str, objectives: Sequence[Objective]) -> list[list[float]]:
        """The true values of all networks, in the order of the rows."""
        return [[row.value(objective.name, task) for objective in objectives] for row in self.rows]

    def front(self, task: str, objectives: Sequence[Objective]) -> tuple[TableRow, ...]:
        """The non-dominated networks."""
        best = non_dominated([costs(values, objectives) for values in self.values(task, objectives)])
        return tuple(row for row, is_best in zip(self.rows, best, strict=True) if is_best)

    def reference(self, task: str, objectives: Sequence[Objective]) -> list[float]:
        """The worst value of all networks in each objective: where hypervolumes of this table end."""
        return [
            max(column, key=lambda value, sign=objective.sign: sign * value)  # type: ignore[misc]
            for objective, column in zip(objectives, zip(*self.values(task, objectives), strict=True), strict=True)
        ]

    def hypervolume(self, rows: Sequence[TableRow], task: str, objectives: Sequence[Objective]) -> float:
        """The hypervolume of some networks by their true values, as a share of that of all."""
        worst = costs(self.reference(task, objectives), objectives)

        def volume(some: Sequence[TableRow]) -> float:
            points = [costs([row.value(o.name, task) for o in objectives], objectives) for row in some]
            return hypervolume(points, worst)

        return volume(rows) / volume(self.rows)

    def refuse_other(self, space: Space) -> None:
        """Raise StudyError unless the space is the one whose networks are in this table."""
        there = {choice.name: choice.labels for choice in space.choices}
        if there != dict(self.choices) or list(there) != list(self.choices):
            other = next(
                (name for name in {**there, **self.choices} if there.get(name) != self.choices.get(name)), "order"
            )
            message = f"the table `{self.name}` is of another space: the choices of `{other}` differ"
            raise StudyError(Problem(space.locate("choices"), "other-space", message, "search the table's own space"))


class TabularAssessor(Assessor):
    """Looks up in a table what `Assessor` measures and trains.

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
        early_stopping: SuccessiveHalving | None = None,
    ):
        table.refuse_other(space)
        self.whole, self.table, self.task = space, table, task
        self.seeds = tuple(table.tasks[task]["seeds"][:2] if seeds is None else seeds)
        self._rows: dict[str, TableRow] = {}
        self._specs: dict[int, Spec] = {}
        training = TabularEvaluator(table, task, self.seeds, self._rows)
        how: dict[str, Any] = {"latency": self._timing, "accuracy": training, "early_stopping": early_stopping}
        super().__init__(space, objectives, constraints=constraints, **how)

    def candidate(self, assignment: Mapping[str, int]) -> Candidate:
        """The network of this assignment, with the counts of the table."""
        row = self.table.row(assignment)
        if row.index not in self._specs:
            spec = self._specs[row.index] = self.whole.spec(assignment, name=f"{self.table.name}_{row.index:03d}")
            self._rows[spec.name] = row
        return Candidate(dict(assignment), self._specs[row.index], row.hash, row.params, row.macs)

    def known_costs(self, assignment: Mapping[str, int]) -> KnownCosts:
        """All but the accuracy."""
        row = self.table.row(assignment)
        return KnownCosts(row.hash, {"params": row.params, "macs": row.macs, "latency": row.latency_ms})

    def _timing(self, spec: Spec) -> Timing:
        """The timing that a row stands for: the middle and the ends of its passes, and the table's target."""
        row, measured = self._rows[spec.name], self.table.about["latency"]
        return Timing(
            **measured["target"],
            runtime_version=measured["runtime_version"],
            device_name=measured["device_name"],
            median_ms=row.latency_ms,
            ci_low_ms=row.low_ms,
            ci_high_ms=row.high_ms,
            p5_ms=row.low_ms,
            p95_ms=row.high_ms,
            p99_ms=row.high_ms,
            runs=measured["passes"],
            warmup=0,
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
    """The folder of the tables that ship with archdsl: in the wheel, or in the checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_data" / "tables"
    return inside if inside.is_dir() else package.parent / "benchmarks" / "tables"


def _row(
    index: int, line: Mapping[str, str], choices: Mapping[str, Sequence[str]], tasks: Mapping[str, Mapping[str, Any]]
) -> TableRow:
    accuracies = {
        task: {
            seed: tuple(float(line[f"{task}_s{seed}_e{epoch}"]) for epoch in range(1, how["epochs"] + 1))
            for seed in how["seeds"]
        }
        for task, how in tasks.items()
    }
    return TableRow(
        index,
        line["network"],
        {name: line[name] for name in choices},
        int(line["params"]),
        int(line["macs"]),
        float(line["latency_ms"]),
        float(line["low_ms"]),
        float(line["high_ms"]),
        accuracies,
    )
