"""A space: a base spec and what may be chosen about it; the set of specs that a study looks through.

A *setting* is one option for each knob (`picks`: knob name -> index of the option). Not every setting is a valid spec,
and several settings may be the same network.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from archdsl.errors import Place, SpecError
from archdsl.spec.aims import Constraints, Objectives, Search
from archdsl.spec.knobs import Knob, Picks, active, num_below, num_settings, settings, with_inner
from archdsl.spec.load import checked, load
from archdsl.spec.model import Spec
from archdsl.spec.node import Node, Path
from archdsl.spec.read import read_spec
from archdsl.spec.render import to_yaml

_MOST_TRIED = 4096


@dataclass(frozen=True)
class Start:
    """A design to try first: what the file calls it, and the picks that give it."""

    name: str
    picks: dict[str, int]


@dataclass(frozen=True, eq=False)
class Space:
    """The specs that a study looks through, and what it wants of them.

    base: the spec that choices change; top: the knobs that always exist (see `knobs` for all)
    start: designs of the file's `search.start`, as picks
    """

    name: str
    source: str | None
    base: Spec
    top: tuple[Knob, ...]
    constraints: Constraints
    objectives: Objectives
    search: Search
    start: tuple[Start, ...]
    tree: Node
    base_tree: Node

    @property
    def data(self) -> dict[str, Any]:
        """The plain mapping as it was written."""
        plain: dict[str, Any] = self.tree.plain()
        return plain

    def to_yaml(self) -> str:
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

    # --- knobs ----------------------------------------------------------------------------------------------------

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """All knobs, those that exist only under an option right after the knob of that option."""
        return tuple(with_inner(self.top))

    def active(self, picks: Picks) -> tuple[Knob, ...]:
        """The knobs that exist under these picks, in the order in which they are set.

        Errors: SpecError when a knob that exists has no pick, or one outside its options
        """
        return tuple(active(self.top, picks))

    @property
    def num_total(self) -> int:
        """How many settings there are, valid or not, the same network or not."""
        return prod(num_settings(knob) for knob in self.top)

    def iterate(self) -> Iterator[dict[str, int]]:
        """Every setting once; the last knob turns fastest."""
        yield from settings(self.top)

    def sample(self, rng: random.Random) -> dict[str, int]:
        """One setting, each equally likely."""
        picks: dict[str, int] = {}
        pending = list(self.top)
        while pending:
            knob = pending.pop(0)
            weights = [num_below(knob, index) for index in range(len(knob.choices))]
            picks[knob.name] = rng.choices(range(len(weights)), weights)[0]
            pending += knob.choices[picks[knob.name]].knobs
        return picks

    # --- specs ----------------------------------------------------------------------------------------------------

    def settings_of(self, picks: Picks) -> dict[str, Any]:
        """What the picks set: spec path -> plain value. A path with `*` sets all its matches."""
        return {knob.path: knob.choices[picks[knob.name]].node.plain() for knob in self.active(picks)}

    def spec(self, picks: Picks, *, name: str | None = None, check: bool = True) -> Spec:
        """The spec of a setting, called `name` (else as the base).

        check: also build its graph
        Errors: SpecError or ShapeError when the setting is no valid spec
        """
        tree = self.base_tree
        for knob in self.active(picks):
            tree = knob.set(tree, picks[knob.name])
        items = {key: value for key, value in tree.value.items() if key != "expect"}
        if name is not None:
            items["name"] = Node(name, tree.mark)
        keys = {"name": tree.mark, **(tree.keys or {})}
        spec = read_spec(Node.mapping(items, keys, tree.mark))
        return checked(spec) if check else spec

    def picks_of(self, design: Spec | str | os.PathLike[str]) -> dict[str, int] | None:
        """The picks that give a spec (or a shipped name or path); None when the space does not hold it.

        Two specs are the same design when input, stem, stages and head are equal.
        """
        spec = design if isinstance(design, Spec) else load(design, check=False)
        picks, differences = self.nearest(spec)
        return picks if not differences else None

    def nearest(self, wanted: Spec) -> tuple[dict[str, int], list[str]]:
        """The setting closest to a spec, and the paths in which it still differs.

        Knob by knob the option with the fewest differences, until nothing improves: exact when knobs do not depend on
        one another; else, in a small space, every setting is compared.
        """
        target = _content(wanted)
        picks = {knob.name: 0 for knob in self.knobs}
        best = self._distance(picks, target)
        for _ in range(4):
            before = len(best)
            for knob in self.knobs:
                if all(knob.name != other.name for other in self.active(picks)):
                    continue
                tried = [self._distance({**picks, knob.name: index}, target) for index in range(len(knob.choices))]
                index = min(range(len(tried)), key=lambda i: (len(tried[i]), i != picks[knob.name]))
                picks[knob.name], best = index, tried[index]
            if not best or len(best) == before:
                break
        if best and self.num_total <= _MOST_TRIED:
            for setting in self.iterate():
                if not self._distance(setting, target):
                    return setting, []
        return {knob.name: picks[knob.name] for knob in self.active(picks)}, best

    def _distance(self, picks: Picks, target: Mapping[str, Any]) -> list[str]:
        try:
            mine = _content(self.spec(picks, check=False))
        except SpecError:
            return ["?"] * 1_000_000
        return [path for path in {**mine, **target} if mine.get(path, _NOTHING) != target.get(path, _NOTHING)]


_NOTHING = object()


def _content(spec: Spec) -> dict[str, Any]:
    """What makes a design, path by path."""
    found: dict[str, Any] = {"input": spec.input, "stem": spec.stem, "head": spec.head}
    for index, stage in enumerate(spec.stages):
        found[f"stages.{index}.downsample"] = stage.downsample
        found[f"stages.{index}.dim"] = stage.dim
        for number, block in enumerate(stage.blocks):
            found[f"stages.{index}.blocks.{number}"] = type(block)
            for field, value in block.__dict__.items():
                found[f"stages.{index}.blocks.{number}.{field}"] = value
    return found
