"""How many settings a space has, how many are valid and how many are different networks.

Small spaces are counted: every setting is looked at. Of large ones a sample is, and the numbers are estimates with a
95 % interval:

- valid: the share in a uniform sample, with Wilson's interval (Wilson 1927);
- distinct: the mean over the sample of 1/m for a valid setting and 0 for another, times the number of settings, where m
  is how many settings give the same network. (Over all settings that sum is exactly the number of networks.) m is
  estimated by turning one knob at a time and multiplying, over the knobs, how many options leave the network the same;
  where settings of one network differ in several knobs that only cancel together, m is too small and the estimate too
  high. The interval is a bootstrap percentile interval of the mean, within what was seen and what may be valid.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

from archdsl.errors import ArchError
from archdsl.spec.knobs import Picks
from archdsl.spec.model import Spec
from archdsl.spec.space import Space

HashOf = Callable[[Spec], str | None]

_Z = 1.959963984540054
_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number, with its 95 % interval when it is not exact."""

    value: int
    low: int
    high: int

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def __str__(self) -> str:
        return f"{self.value:_}" if self.exact else f"about {self.value:_} ({self.low:_} to {self.high:_})"

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "exact": self.exact}


@dataclass(frozen=True)
class SpaceSize:
    """total: settings; valid: settings that are specs; distinct: different networks among them; method: how counted."""

    total: int
    valid: Estimate
    distinct: Estimate
    method: str

    def as_json(self) -> dict[str, Any]:
        counts = {"valid": self.valid.as_json(), "distinct": self.distinct.as_json()}
        return {"total": self.total, **counts, "method": self.method}


def count(space: Space, hash_of: HashOf, *, limit: int = 2000, seed: int = 0) -> SpaceSize:
    """Count a space.

    hash_of: the identity of a spec's network, None (or an ArchError) when it is not valid
    limit: specs to look at: spaces with at most so many settings are counted exactly, of others a sample is taken
    """
    look = _Look(space, hash_of)
    if space.num_total <= limit:
        hashes = [look(picks) for picks in space.iterate()]
        valid, distinct = [one for one in hashes if one is not None], {one for one in hashes if one is not None}
        method = f"exact: all {space.num_total:_} settings were looked at"
        return SpaceSize(space.num_total, _exactly(len(valid)), _exactly(len(distinct)), method)
    return _estimate(space, look, limit, seed)


class _Look:
    """The identity of a setting's network, each setting looked at once."""

    def __init__(self, space: Space, hash_of: HashOf):
        self.space, self.hash_of = space, hash_of
        self.known: dict[tuple[tuple[str, int], ...], str | None] = {}

    def __call__(self, picks: Picks) -> str | None:
        key = tuple((knob.name, picks[knob.name]) for knob in self.space.active(picks))
        if key not in self.known:
            try:
                self.known[key] = self.hash_of(self.space.spec(picks, check=False))
            except ArchError:
                self.known[key] = None
        return self.known[key]


def _estimate(space: Space, look: _Look, limit: int, seed: int) -> SpaceSize:
    rng = random.Random(seed)
    shares: list[float] = []
    seen: set[str] = set()
    while len(look.known) < limit and len(shares) < 4 * limit:
        picks = space.sample(rng)
        mine = look(picks)
        shares.append(0.0 if mine is None else 1 / _num_same(space, look, picks, mine))
        if mine is not None:
            seen.add(mine)
    total, n = space.num_total, len(shares)
    num_valid = sum(share > 0 for share in shares)
    low, high = _wilson(num_valid, n)
    valid = Estimate(
        round(total * num_valid / n), max(num_valid > 0, round(total * low)), min(total, round(total * high))
    )
    means = sorted(sum(rng.choices(shares, k=n)) / n for _ in range(_RESAMPLES))
    least, most = len(seen), max(valid.high, len(seen))
    inside = [min(max(round(total * mean), least), most) for mean in (sum(shares) / n, means[24], means[974])]
    method = (
        f"estimated from {n:_} settings drawn uniformly with seed {seed} ({len(look.known):_} looked at with their "
        "neighbours): valid share with Wilson's 95 % interval; distinct networks from how many single turns of a knob "
        "leave a network the same, with a 95 % bootstrap interval"
    )
    return SpaceSize(total, valid, Estimate(*inside), method)


def _num_same(space: Space, look: _Look, picks: Picks, mine: str) -> int:
    """About how many settings give the same network as this one."""

    def same(name: str, index: int) -> bool:
        turned = {**{knob.name: 0 for knob in space.knobs}, **picks, name: index}
        return look(turned) == mine

    return prod(
        sum(index == picks[knob.name] or same(knob.name, index) for index in range(len(knob.choices)))
        for knob in space.active(picks)
    )


def _wilson(hits: int, n: int) -> tuple[float, float]:
    share = hits / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _exactly(value: int) -> Estimate:
    return Estimate(value, value, value)
