"""Knobs as Optuna's parameters: a range of whole numbers where the options are one, else categories by their labels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Protocol

from optuna.trial import Trial

from archdsl.spec.knobs import Knob

LONGEST = 60
"""Letters of a label that are kept: databases hold no more than 2048 for all options of a parameter."""


class Turnable(Protocol):
    """What is needed of a space here: its knobs, and which of them picks have a say in."""

    @property
    def knobs(self) -> tuple[Knob, ...]: ...
    def active(self, picks: Mapping[str, int]) -> tuple[Knob, ...]: ...


def picks_of(trial: Trial, space: Turnable) -> dict[str, int]:
    """Let the study's sampler turn all knobs, those of the picked options included. -> knob -> index of its option"""
    picks: dict[str, int] = {}
    pending = [knob for knob in space.knobs if knob.parent is None]
    while pending:
        knob = pending.pop(0)
        picks[knob.name] = suggest(trial, knob)
        pending += knob.choices[picks[knob.name]].knobs
    return picks


def parameters_of(picks: Mapping[str, int], space: Turnable) -> dict[str, str | int]:
    """Optuna's parameters for picks: the reverse of `picks_of`."""
    return {knob.name: value_of(knob, picks[knob.name]) for knob in space.active(picks)}


def suggest(trial: Trial, knob: Knob) -> int:
    """Let the study's sampler turn a knob. -> the index of its option"""
    numbers = _range(knob)
    if numbers is not None:
        low, high, step = numbers[0], numbers[-1], numbers[1] - numbers[0]
        return numbers.index(trial.suggest_int(knob.name, low, high, step=step))
    labels = _labels(knob)
    return labels.index(trial.suggest_categorical(knob.name, labels))


def value_of(knob: Knob, index: int) -> str | int:
    """The parameter's value that stands for an option."""
    numbers = _range(knob)
    return _labels(knob)[index] if numbers is None else numbers[index]


def _range(knob: Knob) -> list[int] | None:
    """The options as evenly spaced rising whole numbers, three or more; None when they are not."""
    numbers = [option.node.value for option in knob.choices]
    if len(numbers) < 3 or not all(type(number) is int for number in numbers):
        return None
    steps = {after - before for before, after in pairwise(numbers)}
    return numbers if len(steps) == 1 and steps.pop() > 0 else None


def _labels(knob: Knob) -> list[str]:
    """The options' labels, cut when long, and numbered where they are then the same."""
    short = [label[:LONGEST] for label in knob.options]
    return [text if short.count(text) == 1 else f"{index}: {text}" for index, text in enumerate(short)]
