"""A space in numbers: how large it is, and what its networks cost."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from archdsl.compiler import cost, identity
from archdsl.errors import ArchError
from archdsl.language import Space
from archdsl.language.space.counting import SpaceSize, count

SAMPLED = 200


@dataclass(frozen=True)
class Range:
    """The smallest, middle and largest value of a count over networks of a space."""

    low: int
    median: int
    high: int


@dataclass(frozen=True)
class SpaceFacts:
    """size: settings, valid specs, distinct networks; params, macs: over `num_sampled` valid settings at random."""

    size: SpaceSize
    params: Range | None
    macs: Range | None
    num_sampled: int


def space_facts(space: Space, *, seed: int = 0) -> SpaceFacts:
    """Look at a space: exactly where it is small enough, else at a sample (see `spec.counting`)."""
    size = count(space, lambda spec: identity(spec), seed=seed)
    rng = random.Random(seed)
    costs = []
    for _ in range(min(SAMPLED, space.num_total)):
        try:
            costs.append(cost(space.spec(space.sample(rng))))
        except ArchError:
            continue
    return SpaceFacts(size, _range([c.params for c in costs]), _range([c.macs for c in costs]), len(costs))


def _range(values: list[int]) -> Range | None:
    return Range(min(values), int(statistics.median(values)), max(values)) if values else None
