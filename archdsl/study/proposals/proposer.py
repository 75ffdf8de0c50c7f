"""Which network to evaluate next, when most of its costs are known before it is evaluated.

Parameters and MACs of a network are known at once, its latency often (a table), or nearly (a predictor); the expensive
part is the training. So many candidates are compared: all networks of a small space; of a large one, children of the
front and random networks. The candidate with the highest acquisition is proposed: new, valid, and within the
constraints as far as is known.

A proposal depends on the finished and running trials, the study's seed and the trial's number, on nothing else: there
is no state to lose.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import islice
from math import prod

import numpy as np

from archdsl.errors import ArchError
from archdsl.language import Space
from archdsl.language.space.choices import Assignment, assignments, num_assignments
from archdsl.study.candidate import KnownCosts
from archdsl.study.objectives import Objective
from archdsl.study.proposals.acquisition import Acquisition, Observations, Proposal
from archdsl.study.proposals.encoding import Encoder, Key
from archdsl.study.proposals.operators import crossed, mutated
from archdsl.study.record import Record
from archdsl.study.scoring import Bounds

MOST_LISTED = 512
"""Spaces with at most so many assignments are listed; building each of them once takes a second or a few."""
CHILDREN = 300
"""Candidates of a proposal in a larger space."""
MOST_BUILT = 8
"""Of those, so many are built at a time to compute what is known about them; a graph takes some milliseconds."""
FEWEST_PARENTS = 4

Predict = Callable[[Mapping[str, int]], KnownCosts]
"""Assignment -> what is known of its network. Raises ArchError when it gives no valid network."""


class Proposer:
    """Proposes networks for one study.

    Args:
        space, objectives, constraints, seed: the study's
        known_costs: called once for each assignment that becomes a candidate; its results must not change while the
            study lives
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        known_costs: Predict,
        *,
        constraints: Mapping[str, Bounds] | None = None,
        seed: int = 0,
    ):
        self.space, self.constraints = space, dict(constraints or {})
        self.known_costs, self.seed = known_costs, seed
        self._known: dict[Key, KnownCosts | None] = {}
        self._encoder = Encoder(space.choices)
        self._top = tuple(choice for choice in space.choices if choice.parent is None)
        self._is_small = prod(num_assignments(choice) for choice in self._top) <= MOST_LISTED
        self._acquisition = Acquisition(self._encoder, objectives, self.constraints, is_small=self._is_small)

    def look_ahead(self) -> None:
        """Compute what is known of all networks of a small space: it takes seconds, so no lock should be held."""
        if self._is_small:
            for assignment in assignments(self._top):
                self._look_up(assignment)

    def propose(self, records: Sequence[Record], number: int) -> Assignment | None:
        """The assignment of the network that trial `number` should evaluate.

        It takes some 20 ms; the first time in a small space as long as `look_ahead`, unless that was called.

        Args: records: of all trials so far
        Returns: None when no new network was found
        """
        rng = random.Random(f"{self.seed} {number}")
        records = [record for record in records if record.number != number]  # it may be among them, requeued
        hashes = {record.hash for record in records if record.hash is not None}
        running = [self._proposal(dict(r.assignment)) for r in records if r.assignment and r.state == "open"]
        seen = self._acquisition.observe(records, running, rng)
        if self._is_small:
            return self._best(self._candidates(assignments(self._top), hashes), seen, rng)
        pool = self._children(records, seen, rng)
        unknown = [Proposal(assignment) for assignment in pool]
        order = iter(np.argsort(-self._acquisition(unknown, seen, rng), kind="stable").tolist())
        while some := list(islice(order, MOST_BUILT)):
            if candidates := self._candidates((pool[i] for i in some), hashes):
                return self._best(candidates, seen, rng)
        return None

    def _best(self, candidates: Sequence[Proposal], seen: Observations, rng: random.Random) -> Assignment | None:
        return (
            dict(candidates[int(self._acquisition(candidates, seen, rng).argmax())].assignment) if candidates else None
        )

    def _candidates(self, assignments: Iterable[Assignment], evaluated: Set[str]) -> list[Proposal]:
        """The new networks of some assignments, as far as is known within the constraints; each network once."""
        found: dict[str, Proposal] = {}
        for assignment in assignments:
            known = self._look_up(assignment)
            if known is None or known.hash in evaluated or known.hash in found:
                continue
            if all(known.may_keep(name, b) for name, b in self.constraints.items() if name in known.values):
                found[known.hash] = Proposal(assignment, known.values, known.intervals)
        return list(found.values())

    def _proposal(self, assignment: Assignment) -> Proposal:
        known = self._look_up(assignment)
        return Proposal(assignment) if known is None else Proposal(assignment, known.values, known.intervals)

    def _look_up(self, assignment: Assignment) -> KnownCosts | None:
        key = self._encoder.key(assignment)
        if key not in self._known:
            try:
                self._known[key] = self.known_costs(assignment)
            except ArchError:
                self._known[key] = None
        return self._known[key]

    def _children(self, records: Sequence[Record], seen: Observations, rng: random.Random) -> list[Assignment]:
        """New assignments of a large space: children of the best networks, and random ones."""
        drawn = {self._encoder.key(record.assignment) for record in records if record.assignment}
        most = max(FEWEST_PARENTS, int((seen.ranks == 0).sum()))
        best = [i for i in np.argsort(seen.ranks, kind="stable")[:most] if seen.ranks[i] < len(seen.done)]
        parents = [seen.done[index].assignment for index in best]
        found: dict[Key, Assignment] = {}
        for _ in range(3 * CHILDREN):
            chance = rng.random() if parents else 1.0
            if chance < 0.5:
                child = mutated(self.space, rng.choice(parents), rng)
                if chance < 0.15:
                    child = mutated(self.space, child, rng)
            elif chance < 0.75:
                child = crossed(self.space, rng.choice(parents), rng.choice(parents), rng)
            else:
                child = self.space.sample(rng)
            key = self._encoder.key(child)
            if key not in drawn:
                found.setdefault(key, child)
            if len(found) == CHILDREN:
                break
        return list(found.values())
