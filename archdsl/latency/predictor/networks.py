"""The networks of a space that a predictor is made for: all of a small space, a sample of a large one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from archdsl.compiler import SpecCost, cost, identity
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.latency.predictor.predictor import Parts
from archdsl.spec import Space
from archdsl.spec.model import Spec

ALL_UP_TO = 512
"""Settings of a space that are all looked at; of a larger one a sample is."""
SAMPLED = 200


@dataclass(frozen=True)
class Network:
    """A network of a space: what its knobs are set to, and what it costs and is made of."""

    picks: Mapping[str, int]
    spec: Spec
    hash: str
    parts: Parts
    cost: SpecCost

    @classmethod
    def of(cls, spec: Spec, picks: Mapping[str, int] | None = None) -> Network:
        return cls(dict(picks or {}), spec, identity(spec, training=False), Parts.of(spec), cost(spec))


def networks_of(space: Space, *, sample: int | None = None, seed: int = 0) -> list[Network]:
    """Distinct networks of a space that keep its bounds of parameters and MACs, its base and starts first.

    sample: at most so many, drawn at random; by default all of a space with up to ALL_UP_TO settings, else SAMPLED

    Errors: ArchError when no setting is a valid network
    """
    whole = sample is None and space.num_total <= ALL_UP_TO
    most = space.num_total if whole else sample or SAMPLED
    rng = random.Random(seed)
    first = [picks for picks in (space.picks_of(space.base), *(start.picks for start in space.start)) if picks]
    drawn = space.iterate() if whole else (space.sample(rng) for _ in range(20 * most))
    found: dict[str, Network] = {}
    for picks in (*first, *drawn):
        if len(found) >= most:
            break
        try:
            network = Network.of(space.spec(picks, check=False), picks)
        except ArchError:
            continue
        if network.hash not in found and _keeps_bounds(space, network.cost):
            found[network.hash] = network
    if not found:
        message = f"no network of {space.name} was found that keeps its bounds of params and macs"
        raise ArchError(
            Problem(at_argument("SPACE", space.name), "empty-space", message, "widen `constraints`, or draw more")
        )
    return list(found.values())


def _keeps_bounds(space: Space, costs: SpecCost) -> bool:
    for value, bounds in ((costs.params, space.constraints.params), (costs.macs, space.constraints.macs)):
        if bounds is not None and not (bounds.min or 0) <= value <= (inf if bounds.max is None else bounds.max):
            return False
    return True
