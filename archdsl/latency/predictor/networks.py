"""The networks of a space that a predictor is made for: all of a small space, a sample of a large one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from archdsl.compiler import SpecCost, cost, identity
from archdsl.errors import ArchError, MeasureError
from archdsl.language import Space
from archdsl.language.architecture.model import Spec
from archdsl.latency.predictor.predictor import NetworkSegments

ALL_UP_TO = 512
"""Spaces of at most so many assignments are enumerated, larger ones sampled."""
SAMPLED = 200


@dataclass(frozen=True)
class CandidateNetwork:
    """A network of a space.

    assignment: that gives it; empty for a spec from elsewhere
    hash:       its identity in the deploy form
    parts:      the segments it is made of
    cost:       of one image
    """

    assignment: Mapping[str, int]
    spec: Spec
    hash: str
    parts: NetworkSegments
    cost: SpecCost

    @classmethod
    def of(cls, spec: Spec, assignment: Mapping[str, int] | None = None) -> CandidateNetwork:
        """The network of a spec, with the assignment that gives it where there is one."""
        return cls(dict(assignment or {}), spec, identity(spec, training=False), NetworkSegments.of(spec), cost(spec))


def networks_of(space: Space, *, sample: int | None = None, seed: int = 0) -> list[CandidateNetwork]:
    """Distinct networks of a space that keep its bounds of parameters and MACs, its base and starts first.

    sample: at most so many, drawn at random; by default all of a space with up to ALL_UP_TO assignments, else SAMPLED

    Raises: ArchError when no assignment is a valid network; MeasureError when none can be cut into segments
    """
    whole = sample is None and space.num_total <= ALL_UP_TO
    most = space.num_total if whole else sample or SAMPLED
    rng = random.Random(seed)
    first = [
        assignment
        for assignment in (space.assignment_of(space.base), *(start.assignment for start in space.start))
        if assignment
    ]
    drawn = space.iterate() if whole else (space.sample(rng) for _ in range(20 * most))
    found: dict[str, CandidateNetwork] = {}
    uncut: MeasureError | None = None
    for assignment in (*first, *drawn):
        if len(found) >= most:
            break
        try:
            network = CandidateNetwork.of(space.spec(assignment, check=False), assignment)
        except MeasureError as error:
            uncut = error
            continue
        except ArchError:
            continue
        if network.hash not in found and _keeps_bounds(space, network.cost):
            found[network.hash] = network
    if not found and uncut is not None:
        raise uncut
    if not found:
        message = f"no network of {space.name} was found that keeps its bounds of params and macs"
        raise ArchError.at("SPACE", space.name, "empty-space", message, "widen `constraints`, or draw more")
    return list(found.values())


def _keeps_bounds(space: Space, costs: SpecCost) -> bool:
    for value, bounds in ((costs.params, space.constraints.params), (costs.macs, space.constraints.macs)):
        if bounds is not None and not (bounds.min or 0) <= value <= (inf if bounds.max is None else bounds.max):
            return False
    return True
