"""New assignments from known ones: another option for the choices of one stage, or whole stages of two parents.

What belongs together in a network is kept together: the choices of a stage are inherited as one.
"""

from __future__ import annotations

import random

from archdsl.ir.paths import stage_of
from archdsl.language import Space
from archdsl.language.space.choices import Assignment


def mutated(space: Space, parent: Assignment, rng: random.Random) -> dict[str, int]:
    """The parent with another option of one choice of one stage, and of others of that stage with a chance of 1/4."""
    active = space.active(parent)
    turnable = [choice for choice in active if len(choice.options) > 1]
    if not turnable:
        return dict(parent)
    stage = rng.choice(sorted({stage_of(choice.path) for choice in turnable}))
    inside = [choice for choice in turnable if stage_of(choice.path) == stage]
    surely = rng.choice(inside)
    child = dict(parent)
    for choice in inside:
        if choice is surely or rng.random() < 0.25:
            child[choice.name] = rng.choice([i for i in range(len(choice.options)) if i != parent[choice.name]])
    return completed(space, child, rng)


def crossed(space: Space, one: Assignment, other: Assignment, rng: random.Random) -> dict[str, int]:
    """Each stage from one of two parents."""
    stages = sorted({stage_of(choice.path) for choice in (*space.active(one), *space.active(other))})
    taken = {stage: rng.random() < 0.5 for stage in stages}
    child: dict[str, int] = {}
    for choice in space.choices:
        first, second = (one, other) if taken.get(stage_of(choice.path), True) else (other, one)
        if choice.name in first:
            child[choice.name] = first[choice.name]
        elif choice.name in second:
            child[choice.name] = second[choice.name]
    return completed(space, child, rng)


def completed(space: Space, assignment: Assignment, rng: random.Random) -> dict[str, int]:
    """Assignment of exactly the choices that exist under them: those without a pick are drawn."""
    found: dict[str, int] = {}
    pending = [choice for choice in space.choices if choice.parent is None]
    while pending:
        choice = pending.pop(0)
        found[choice.name] = (
            assignment[choice.name] if choice.name in assignment else rng.randrange(len(choice.options))
        )
        pending += choice.options[found[choice.name]].choices
    return found
