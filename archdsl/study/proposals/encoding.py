"""Assignments and values as arrays: features of a network, and costs of which less is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from statistics import median

import numpy as np

from archdsl.language.space.choices import Choice
from archdsl.study.hypervolume import Array
from archdsl.study.objectives import Objective, objective_named
from archdsl.study.record import Record

COUNTS = ("params", "macs")
Key = tuple[int, ...]


class Encoder:
    """Assignments as features: the rank for a choice whose options are numbers; else one column for each option.

    A choice that does not exist under some assignments is 0 in all its columns.
    """

    def __init__(self, choices: Sequence[Choice]):
        self.choices = tuple(choices)

    def __call__(self, assignments: Sequence[Mapping[str, int]]) -> Array:
        """[n] assignments -> [n, k], each column within 0 and 1."""
        columns = []
        for choice in self.choices:
            picked = np.array([assignment.get(choice.name, -1) for assignment in assignments])
            if _is_ordered(choice):
                columns.append(np.where(picked < 0, 0.5, picked / (len(choice.options) - 1)))
            else:
                columns += [(picked == index) * 0.5**0.5 for index in range(len(choice.options))]
        return np.stack(columns, axis=1) if columns else np.zeros((len(assignments), 1))

    def key(self, assignment: Mapping[str, int]) -> Key:
        """Equal for equal assignments."""
        return tuple(assignment.get(choice.name, -1) for choice in self.choices)


def _is_ordered(choice: Choice) -> bool:
    values = [option.node.value for option in choice.options]
    return len(values) > 1 and all(type(v) in (int, float) for v in values) and values == sorted(values)


class CostColumns:
    """Values as rows of costs, one column for each name; less is better.

    names: the objectives, then the constraints and the counts that are not among them
    """

    def __init__(self, objectives: Sequence[Objective], constraints: Sequence[str]):
        self.objectives = tuple(objectives)
        self.names = list(dict.fromkeys([*(objective.name for objective in objectives), *constraints, *COUNTS]))

    def rows(self, values: Sequence[Mapping[str, float]]) -> Array:
        """Values by name -> [n, names]; nan where a value is missing."""
        found = np.array([[one.get(name, nan) for name in self.names] for one in values], dtype=float)
        found = found.reshape(len(values), len(self.names))
        for column, name in enumerate(self.names):
            found[:, column] = cost_of(name, found[:, column])
        return found

    def observed(self, records: Sequence[Record]) -> Array:
        """The measured values of trials -> [n, names]; nan where a value was not measured.

        The accuracy of a training that was stopped is raised by what others gained from there to the end (median).
        """
        gains = self._gains(records)
        return self.rows([self._values(record, gains) for record in records])

    def _values(self, record: Record, gains: Mapping[int, float]) -> dict[str, float]:
        counts = {"params": record.params, "macs": record.macs, "latency_estimate": record.latency_estimate}
        found = {name: float(count) for name, count in counts.items() if count is not None}
        for name in self.names:
            kind, _, target = name.partition("@")
            if kind == "accuracy" and record.accuracy is not None:
                mean = record.accuracy.mean
                found[name] = mean if record.accuracy.is_final else mean + gains.get(record.accuracy.epochs, nan)
            elif kind == "latency" and target in record.timing_by_target:
                found[name] = record.timing_by_target[target].median_ms
        if record.values is not None:
            found |= {objective.name: value for objective, value in zip(self.objectives, record.values, strict=True)}
        return found

    def _gains(self, records: Sequence[Record]) -> dict[int, float]:
        """Epoch -> how much accuracy rose from there to the end, as a median over the trials that reached the end."""
        column = next((i for i, objective in enumerate(self.objectives) if objective.kind == "accuracy"), None)
        found: dict[int, list[float]] = {}
        for record in records:
            if column is not None and record.values is not None:
                for epoch, values in record.rungs.items():
                    found.setdefault(epoch, []).append(record.values[column] - values[column])
        return {epoch: median(gains) for epoch, gains in found.items()}


def cost_of(name: str, values: Array) -> Array:
    """Values of one name so that less is better: accuracy as it is, all else by its logarithm; nan stays nan."""
    objective = objective_named(name)
    found: Array = objective.sign * (values if objective.kind == "accuracy" else np.log(np.maximum(values, 1e-300)))
    return found
