"""A space: a base spec and what may be chosen about it; the set of specs that a study looks through.

An *assignment* is one option for each choice (choice name -> index of the option). Not every assignment is a valid
spec, and several assignments may be the same network.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from archdsl.errors import Place, SpecError
from archdsl.language.architecture.from_data import put_classes, wants_classes, with_classes
from archdsl.language.architecture.load import checked, load
from archdsl.language.architecture.model import Spec
from archdsl.language.architecture.override import DESCRIBING_THE_NETWORK
from archdsl.language.architecture.read import read_spec
from archdsl.language.space.choices import (
    Assignment,
    Choice,
    active,
    assignments,
    num_assignments,
    num_assignments_below,
    with_inner,
)
from archdsl.language.space.objectives import Constraints, Objectives, Search
from archdsl.language.text.node import Path, YamlNode
from archdsl.language.text.render import to_yaml

_MOST_TRIED = 4096


@dataclass(frozen=True)
class Start:
    """A design to try first: what the file calls it, and the assignment that gives it."""

    name: str
    assignment: dict[str, int]


@dataclass(frozen=True, eq=False)
class Space:
    """The specs that a study looks through, and what it wants of them.

    base: the spec that choices change; top: the choices that always exist (see `choices` for all)
    start: designs of the file's `search.start`
    num_classes: of the data, once they are known; see `with_classes`

    Example:
        >>> import random
        >>> from archdsl.language import loads_space
        >>> space = loads_space("{base: swin_t, choices: {stages.0.window: [7, 14], stages.2.depth: [4, 6]}}")
        >>> space.spec({"stages.0.window": 1, "stages.2.depth": 0}).stages[0].blocks[0].window
        14
        >>> space.assignment_of("swin_t"), space.assignment_of("vit_s_16")
        ({'stages.0.window': 0, 'stages.2.depth': 1}, None)
    """

    name: str
    source: str | None
    base: Spec
    top: tuple[Choice, ...]
    constraints: Constraints
    objectives: Objectives
    search: Search
    start: tuple[Start, ...]
    tree: YamlNode
    base_tree: YamlNode
    num_classes: int | None = None

    def with_classes(self, num_classes: int | None) -> Space:
        """The space whose specs have that many classes where they say `head.classes: data`; None changes nothing."""
        if num_classes is None:
            return self
        base, tree = with_classes(self.base, num_classes), self.base_tree
        tree = put_classes(tree, num_classes) if wants_classes(self.base) else tree
        return replace(self, base=base, base_tree=tree, num_classes=num_classes)

    @property
    def data(self) -> dict[str, Any]:
        """The plain mapping as it was written."""
        plain: dict[str, Any] = self.tree.plain()
        return plain

    def to_yaml(self) -> str:
        """The text of a space file that loads to this space."""
        return to_yaml(self.data)

    def locate(self, path: Path | str = ()) -> Place:
        """Where the value at a path of the space's file is written, or its nearest parent.

        The keys of `choices` hold dots themselves: give the path as a tuple to reach below one.
        """
        node = self.tree
        for part in path.split(".") if isinstance(path, str) else path:
            below = node.child(part)
            if below is None:
                break
            node = below
        return node.mark.place()

    # --- choices --------------------------------------------------------------------------------------------------

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All choices, those that exist only under an option right after the choice of that option."""
        return tuple(with_inner(self.top))

    def active(self, assignment: Assignment) -> tuple[Choice, ...]:
        """The choices that exist under an assignment, in the order in which they are set.

        Raises: SpecError when a choice that exists has no index, or one outside its options
        """
        return tuple(active(self.top, assignment))

    @property
    def num_total(self) -> int:
        """How many assignments there are, valid or not, the same network or not."""
        return prod(num_assignments(choice) for choice in self.top)

    def iterate(self) -> Iterator[dict[str, int]]:
        """Every assignment once; the last choice varies fastest."""
        yield from assignments(self.top)

    def sample(self, rng: random.Random) -> dict[str, int]:
        """One assignment, each equally likely."""
        assignment: dict[str, int] = {}
        pending = list(self.top)
        while pending:
            choice = pending.pop(0)
            weights = [num_assignments_below(choice, index) for index in range(len(choice.options))]
            beyond = max(0, max(weights).bit_length() - 1000)  # more than a float holds
            assignment[choice.name] = rng.choices(range(len(weights)), [weight >> beyond for weight in weights])[0]
            pending += choice.options[assignment[choice.name]].choices
        return assignment

    # --- specs ----------------------------------------------------------------------------------------------------

    def values_of(self, assignment: Assignment) -> dict[str, Any]:
        """What the assignment sets: spec path -> plain value. A path with `*` sets all its matches."""
        return {choice.path: choice.options[assignment[choice.name]].node.plain() for choice in self.active(assignment)}

    def spec(self, assignment: Assignment, *, name: str | None = None, check: bool = True) -> Spec:
        """The spec of an assignment, called `name` (else as the base).

        check: also build its graph
        Raises: SpecError or ShapeError when the assignment is no valid spec
        """
        tree = self.base_tree
        for choice in self.active(assignment):
            tree = choice.set(tree, assignment[choice.name])
        items = tree.without(*DESCRIBING_THE_NETWORK).value
        if name is not None:
            items["name"] = YamlNode(name, tree.mark)
        keys = {"name": tree.mark, **(tree.keys or {})}
        spec = read_spec(YamlNode.mapping(items, keys, tree.mark))
        if self.num_classes is not None:
            spec = with_classes(spec, self.num_classes)
        return checked(spec) if check else spec

    def assignment_of(self, design: Spec | str | os.PathLike[str]) -> dict[str, int] | None:
        """The assignment that gives a spec (or a shipped name or path); None when the space does not hold it.

        Two specs are the same design when input, stem, stages and head are equal.
        """
        spec = design if isinstance(design, Spec) else load(design, check=False)
        assignment, differences = self.nearest(spec)
        return assignment if not differences else None

    def nearest(self, wanted: Spec) -> tuple[dict[str, int], list[str]]:
        """The assignment closest to a spec, and the paths in which it still differs.

        Choice by choice the option with the fewest differences, until nothing improves: exact when choices do not
        depend on one another; else, in a small space, every assignment is compared.
        """
        target = _content(wanted)
        assignment = {choice.name: 0 for choice in self.choices}
        best = self._distance(assignment, target)
        for _ in range(4):
            before = len(best)
            for choice in self.choices:
                if all(choice.name != other.name for other in self.active(assignment)):
                    continue
                tried = [
                    self._distance({**assignment, choice.name: index}, target) for index in range(len(choice.options))
                ]
                index = min(range(len(tried)), key=lambda i: (len(tried[i]), i != assignment[choice.name]))
                assignment[choice.name], best = index, tried[index]
            if not best or len(best) == before:
                break
        if best and self.num_total <= _MOST_TRIED:
            for every in self.iterate():
                if not self._distance(every, target):
                    return every, []
        return {choice.name: assignment[choice.name] for choice in self.active(assignment)}, best

    def _distance(self, assignment: Assignment, target: Mapping[str, Any]) -> list[str]:
        try:
            mine = _content(self.spec(assignment, check=False))
        except SpecError:
            return ["?"] * 1_000_000
        return [path for path in {**mine, **target} if mine.get(path, _NOTHING) != target.get(path, _NOTHING)]


_NOTHING = object()


def _content(spec: Spec) -> dict[str, Any]:
    """What makes a design, path by path."""
    found: dict[str, Any] = {"input": spec.input, "stem": spec.stem, "head": spec.head}
    found |= {"features": spec.features, "neck": spec.neck, "heads": spec.heads}
    for index, stage in enumerate(spec.stages):
        found[f"stages.{index}.downsample"] = stage.downsample
        found[f"stages.{index}.dim"] = stage.dim
        for number, block in enumerate(stage.blocks):
            found[f"stages.{index}.blocks.{number}"] = type(block)
            for field, value in block.__dict__.items():
                found[f"stages.{index}.blocks.{number}.{field}"] = value
    return found
