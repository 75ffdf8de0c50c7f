"""Knobs: what can be turned in a space, and walking through all of their settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from archdsl.errors import Problem, SpecError, at_argument
from archdsl.spec.merge import merge
from archdsl.spec.node import Node
from archdsl.spec.override import Step, change
from archdsl.spec.words import quoted

Picks = Mapping[str, int]
"""A setting: name of a knob -> index of the option that is picked."""

Target = tuple[Step, ...]
"""A path without `*`."""


@dataclass(frozen=True)
class Option:
    """One way to set a knob. label: how it reads; node: the value; knobs: what can be turned once it is picked."""

    label: str
    node: Node
    knobs: tuple[Knob, ...] = ()


@dataclass(frozen=True)
class Knob:
    """One thing that can be turned.

    name: unique in the space; path: the spec path it sets, with `*` where it sets all matches the same
    choices: its options; parent: (name of a knob, index of its option) without which this knob does not exist
    """

    name: str
    path: str
    targets: tuple[Target, ...]
    choices: tuple[Option, ...]
    parent: tuple[str, int] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The labels of the options, in the order of their indices."""
        return tuple(option.label for option in self.choices)

    @property
    def depth(self) -> int:
        return len(self.targets[0])

    def set(self, tree: Node, index: int) -> Node:
        """The tree with option `index` picked."""
        value = self.choices[index].node
        for target in self.targets:
            tree = change(tree, target, _merged_with(value, target[-1].name))
        return tree


def _merged_with(value: Node, key: str) -> Callable[[Node | None], Node]:
    return lambda old: value if old is None else merge(old, value, key)


def with_inner(knobs: tuple[Knob, ...]) -> Iterator[Knob]:
    """All knobs, each followed by those that exist under its options."""
    for knob in knobs:
        yield knob
        for option in knob.choices:
            yield from with_inner(option.knobs)


def active(knobs: tuple[Knob, ...], picks: Picks) -> Iterator[Knob]:
    """The knobs that exist under these picks, each before those that depend on it."""
    for knob in knobs:
        index = picks.get(knob.name)
        if not isinstance(index, int) or not 0 <= index < len(knob.choices):
            place = at_argument("picks", f"{knob.name}: {index}")
            message = f"{quoted(knob.name)} must be a number from 0 to {len(knob.choices) - 1}, but got {index}"
            hint = f"its options are {', '.join(knob.options[:20])}"
            raise SpecError(Problem(place, "wrong-value", message, hint, knob.path))
        yield knob
        yield from active(knob.choices[index].knobs, picks)


def num_below(knob: Knob, index: int) -> int:
    """How many settings the knobs under one option have."""
    return prod(num_settings(inner) for inner in knob.choices[index].knobs)


def num_settings(knob: Knob) -> int:
    """How many settings a knob has, with all that exist under its options."""
    return sum(num_below(knob, index) for index in range(len(knob.choices)))


def settings(knobs: tuple[Knob, ...]) -> Iterator[dict[str, int]]:
    """Every setting of these knobs; the last one turns fastest."""
    if not knobs:
        yield {}
        return
    first, rest = knobs[0], knobs[1:]
    for index, option in enumerate(first.choices):
        for inner in settings(option.knobs):
            for others in settings(rest):
                yield {first.name: index, **inner, **others}
