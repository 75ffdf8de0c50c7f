"""How many assignments a space has, how many are valid and how many are different networks.

Small spaces are counted: every assignment is looked at. Of large ones a sample is, and the numbers are estimates with a
95 % interval:

- valid: the share in a uniform sample, with Wilson's interval (Wilson 1927);
- distinct: the mean over the sample of 1/m for a valid assignment and 0 for another, times the number of assignments,
  where m is how many assignments give the same network. (Over all assignments that sum is exactly the number of
  networks.) m is estimated by changing one choice at a time and multiplying, over the choices, how many options leave
  the network the same; where assignments of one network differ in several choices that only cancel together, m is too
  small and the estimate too high. The interval is a bootstrap percentile interval of the mean, within what was seen
  and what may be valid.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

from archdsl.errors import ArchError
from archdsl.language.architecture.model import Spec
from archdsl.language.space.choices import Assignment
from archdsl.language.space.space import Space
from archdsl.statistics import wilson_interval

HashOf = Callable[[Spec], str | None]

_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number, with its 95 % interval when it is not exact."""

    value: int
    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether the number was counted and not estimated."""
        return self.low == self.high

    def __str__(self) -> str:
        return f"{self.value:_}" if self.exact else f"about {self.value:_} ({self.low:_} to {self.high:_})"

    def as_json(self) -> dict[str, Any]:
        """The three numbers, and whether they are exact."""
        return {"value": self.value, "low": self.low, "high": self.high, "exact": self.exact}


@dataclass(frozen=True)
class SpaceSize:
    """total: assignments; valid: those that are specs; distinct: different networks among them; method: how counted."""

    total: int
    valid: Estimate
    distinct: Estimate
    method: str

    def as_json(self) -> dict[str, Any]:
        """The fields, each estimate with its interval."""
        counts = {"valid": self.valid.as_json(), "distinct": self.distinct.as_json()}
        return {"total": self.total, **counts, "method": self.method}


def count(space: Space, hash_of: HashOf, *, limit: int = 2000, seed: int = 0) -> SpaceSize:
    """Count a space.

    hash_of: the identity of a spec's network, None (or an ArchError) when it is not valid
    limit: specs to look at: spaces with at most so many assignments are counted exactly, of others a sample is taken

    Example:
        >>> from archdsl.compiler import identity
        >>> from archdsl.language import loads_space
        >>> space = loads_space("{base: micro_swin, choices: {stages.1.window: [8, 9], stages.1.shift: [true, false]}}")
        >>> size = count(space, identity)
        >>> size.total, str(size.valid), str(size.distinct)
        (4, '4', '1')
    """
    look = _Look(space, hash_of)
    if space.num_total <= limit:
        hashes = [look(assignment) for assignment in space.iterate()]
        valid, distinct = [one for one in hashes if one is not None], {one for one in hashes if one is not None}
        method = f"exact: all {space.num_total:_} assignments were counted"
        return SpaceSize(space.num_total, _exactly(len(valid)), _exactly(len(distinct)), method)
    return _estimate(space, look, limit, seed)


class _Look:
    """The identity of an assignment's network, each assignment looked at once."""

    def __init__(self, space: Space, hash_of: HashOf):
        self.space, self.hash_of = space, hash_of
        self.known: dict[tuple[tuple[str, int], ...], str | None] = {}

    def __call__(self, assignment: Assignment) -> str | None:
        key = tuple((choice.name, assignment[choice.name]) for choice in self.space.active(assignment))
        if key not in self.known:
            try:
                self.known[key] = self.hash_of(self.space.spec(assignment, check=False))
            except ArchError:
                self.known[key] = None
        return self.known[key]


def _estimate(space: Space, look: _Look, limit: int, seed: int) -> SpaceSize:
    rng = random.Random(seed)
    shares: list[float] = []
    seen: set[str] = set()
    while len(look.known) < limit and len(shares) < 4 * limit:
        assignment = space.sample(rng)
        mine = look(assignment)
        shares.append(0.0 if mine is None else 1 / _num_same(space, look, assignment, mine))
        if mine is not None:
            seen.add(mine)
    total, n = space.num_total, len(shares)
    num_valid = sum(share > 0 for share in shares)
    low, high = wilson_interval(num_valid / n, n)
    valid = Estimate(_part(total, num_valid / n), max(num_valid > 0, _part(total, low)), _part(total, high))
    means = sorted(sum(rng.choices(shares, k=n)) / n for _ in range(_RESAMPLES))
    least, most = len(seen), max(valid.high, len(seen))
    inside = [min(max(_part(total, mean), least), most) for mean in (sum(shares) / n, means[24], means[974])]
    method = (
        f"estimated from {n:_} assignments drawn uniformly with seed {seed} ({len(look.known):_} with their "
        "neighbours): valid share with Wilson's 95 % interval; distinct networks from how many single changes of a "
        "choice leave a network the same, with a 95 % bootstrap interval"
    )
    return SpaceSize(total, valid, Estimate(*inside), method)


def _num_same(space: Space, look: _Look, assignment: Assignment, mine: str) -> int:
    """About how many assignments give the same network as this one."""

    def same(name: str, index: int) -> bool:
        turned = {**{choice.name: 0 for choice in space.choices}, **assignment, name: index}
        return look(turned) == mine

    return prod(
        sum(index == assignment[choice.name] or same(choice.name, index) for index in range(len(choice.options)))
        for choice in space.active(assignment)
    )


def _part(total: int, share: float) -> int:
    """A share of a number that may be larger than any float."""
    return min(total, round(total * Fraction(share)))


def _exactly(value: int) -> Estimate:
    return Estimate(value, value, value)
