"""New settings from known ones: another option for the knobs of one stage, or whole stages of two parents.

What belongs together in a network is kept together: the knobs of a stage are inherited as one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

from archdsl.spec.knobs import Knob

Picks = dict[str, int]


class Pickable(Protocol):
    """What is needed of a space here."""

    @property
    def knobs(self) -> tuple[Knob, ...]: ...
    def active(self, picks: Mapping[str, int]) -> tuple[Knob, ...]: ...
    def sample(self, rng: random.Random) -> Picks: ...


def stage_of(knob: Knob) -> str:
    """The part of the network that a knob changes: `stages.2`, `stages.*`, `stem`, `defaults`, …"""
    steps = knob.path.split(".")
    return ".".join(steps[: 2 if steps[0] == "stages" else 1])


def mutated(space: Pickable, parent: Mapping[str, int], rng: random.Random) -> Picks:
    """The parent with another option of one knob of one stage, and of others of that stage with a chance of 1/4."""
    active = space.active(parent)
    turnable = [knob for knob in active if len(knob.choices) > 1]
    if not turnable:
        return dict(parent)
    stage = rng.choice(sorted({stage_of(knob) for knob in turnable}))
    inside = [knob for knob in turnable if stage_of(knob) == stage]
    surely = rng.choice(inside)
    child = dict(parent)
    for knob in inside:
        if knob is surely or rng.random() < 0.25:
            child[knob.name] = rng.choice([i for i in range(len(knob.choices)) if i != parent[knob.name]])
    return settled_picks(space, child, rng)


def crossed(space: Pickable, one: Mapping[str, int], other: Mapping[str, int], rng: random.Random) -> Picks:
    """Each stage from one of two parents."""
    stages = sorted({stage_of(knob) for knob in (*space.active(one), *space.active(other))})
    taken = {stage: rng.random() < 0.5 for stage in stages}
    child: Picks = {}
    for knob in space.knobs:
        first, second = (one, other) if taken.get(stage_of(knob), True) else (other, one)
        if knob.name in first:
            child[knob.name] = first[knob.name]
        elif knob.name in second:
            child[knob.name] = second[knob.name]
    return settled_picks(space, child, rng)


def settled_picks(space: Pickable, picks: Mapping[str, int], rng: random.Random) -> Picks:
    """Picks of exactly the knobs that exist under them: those without a pick are drawn."""
    found: Picks = {}
    pending = [knob for knob in space.knobs if knob.parent is None]
    while pending:
        knob = pending.pop(0)
        found[knob.name] = picks[knob.name] if knob.name in picks else rng.randrange(len(knob.choices))
        pending += knob.choices[found[knob.name]].knobs
    return found
