"""The decision variables of a search space, and walking through all of their assignments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from archdsl.errors import Problem, SpecError, at_argument
from archdsl.language.architecture.merge import merge
from archdsl.language.architecture.override import PathStep, change
from archdsl.language.text.node import YamlNode
from archdsl.language.text.words import quoted

Assignment = Mapping[str, int]
"""Name of a choice -> index of the option that it takes."""

SpecPath = tuple[PathStep, ...]
"""A path in a spec, without `*`."""


@dataclass(frozen=True)
class Option:
    """One value that a choice may take.

    label:   the value as it is shown
    node:    the value
    choices: what is to be decided only where this option is taken
    """

    label: str
    node: YamlNode
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One decision variable of a search space.

    name:    unique in the space
    path:    the spec path it sets; `*` sets all matches alike
    paths:   the matches of `path`, all of one depth
    options: its values, in the order of their indices
    parent:  (choice, option index) under which it exists; None: always

    Example:
        >>> from archdsl.language import loads_space
        >>> (choice,) = loads_space("{base: swin_t, choices: {stages.0.window: [7, 14]}}").choices
        >>> choice.name, choice.labels
        ('stages.0.window', ('7', '14'))
    """

    name: str
    path: str
    paths: tuple[SpecPath, ...]
    options: tuple[Option, ...]
    parent: tuple[str, int] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the options, in the order of their indices."""
        return tuple(option.label for option in self.options)

    @property
    def depth(self) -> int:
        """The number of steps of its path."""
        return len(self.paths[0])

    def set(self, tree: YamlNode, index: int) -> YamlNode:
        """The tree with the value of option `index` at every path of this choice."""
        value = self.options[index].node
        for path in self.paths:
            tree = change(tree, path, _merged_with(value, path[-1].name))
        return tree


def _merged_with(value: YamlNode, key: str) -> Callable[[YamlNode | None], YamlNode]:
    return lambda old: value if old is None else merge(old, value, key)


def with_inner(choices: tuple[Choice, ...]) -> Iterator[Choice]:
    """All choices, each followed by those that exist under its options."""
    for choice in choices:
        yield choice
        for option in choice.options:
            yield from with_inner(option.choices)


def active(choices: tuple[Choice, ...], assignment: Assignment) -> Iterator[Choice]:
    """The choices that exist under an assignment, each before those that depend on it."""
    for choice in choices:
        index = assignment.get(choice.name)
        if not isinstance(index, int) or not 0 <= index < len(choice.options):
            place = at_argument("picks", f"{choice.name}: {index}")
            message = f"{quoted(choice.name)} must be a number from 0 to {len(choice.options) - 1}, but got {index}"
            hint = f"its options are {', '.join(choice.labels[:20])}"
            raise SpecError(Problem(place, "wrong-value", message, hint, choice.path))
        yield choice
        yield from active(choice.options[index].choices, assignment)


def num_assignments_below(choice: Choice, index: int) -> int:
    """How many assignments the choices under one option have."""
    return prod(num_assignments(inner) for inner in choice.options[index].choices)


def num_assignments(choice: Choice) -> int:
    """How many assignments a choice has, with all choices that exist under its options."""
    return sum(num_assignments_below(choice, index) for index in range(len(choice.options)))


def assignments(choices: tuple[Choice, ...]) -> Iterator[dict[str, int]]:
    """Every assignment of these choices; the last choice varies fastest."""
    if not choices:
        yield {}
        return
    first, rest = choices[0], choices[1:]
    for index, option in enumerate(first.options):
        for inner in assignments(option.choices):
            for others in assignments(rest):
                yield {first.name: index, **inner, **others}
