"""Choices as Optuna's parameters: a range of whole numbers where the options are one, else categories by label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from optuna.trial import Trial

from archdsl.language import Space
from archdsl.language.space.choices import Choice

LONGEST = 60
"""Letters of a label that are kept: databases hold no more than 2048 for all options of a parameter."""


def suggest_assignment(trial: Trial, space: Space, *, between: Callable[[], None] = lambda: None) -> dict[str, int]:
    """An assignment by the study's sampler: of all choices that exist, those under the options taken included.

    Args: between: called before each choice; what it raises passes through
    """
    assignment: dict[str, int] = {}
    pending = [choice for choice in space.choices if choice.parent is None]
    while pending:
        between()
        choice = pending.pop(0)
        assignment[choice.name] = suggest(trial, choice)
        pending += choice.options[assignment[choice.name]].choices
    return assignment


def parameters_of(assignment: Mapping[str, int], space: Space) -> dict[str, str | int]:
    """Optuna's parameters for an assignment: the reverse of `suggest_assignment`."""
    return {choice.name: value_of(choice, assignment[choice.name]) for choice in space.active(assignment)}


def suggest(trial: Trial, choice: Choice) -> int:
    """The index of the option that the study's sampler takes for a choice."""
    numbers = _range(choice)
    if numbers is not None:
        low, high, step = numbers[0], numbers[-1], numbers[1] - numbers[0]
        return numbers.index(trial.suggest_int(choice.name, low, high, step=step))
    labels = _labels(choice)
    return labels.index(trial.suggest_categorical(choice.name, labels))


def value_of(choice: Choice, index: int) -> str | int:
    """The parameter's value that stands for an option."""
    numbers = _range(choice)
    return _labels(choice)[index] if numbers is None else numbers[index]


def _range(choice: Choice) -> list[int] | None:
    """The options as evenly spaced rising whole numbers, three or more; None when they are not."""
    numbers = [option.node.value for option in choice.options]
    if len(numbers) < 3 or not all(type(number) is int for number in numbers):
        return None
    steps = {after - before for before, after in pairwise(numbers)}
    return numbers if len(steps) == 1 and steps.pop() > 0 else None


def _labels(choice: Choice) -> list[str]:
    """The options' labels, cut when long, and numbered where they are then the same."""
    short = [label[:LONGEST] for label in choice.labels]
    return [text if short.count(text) == 1 else f"{index}: {text}" for index, text in enumerate(short)]
