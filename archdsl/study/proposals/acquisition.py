"""The acquisition function: how much each candidate is expected to add to the front, within the constraints.

What is not known of a candidate has the posterior of a Gaussian process that is conditioned on the trials so far. The
acquisition is the expected hypervolume improvement times the probability that the constraints hold. Costs are compared
by their logarithms (a tenth faster counts the same for a fast network as for a slow one), accuracy as it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from archdsl.latency.predictor.predictor import LEVEL
from archdsl.statistics import normal_cdf
from archdsl.study.hypervolume import Array, non_domination_ranks
from archdsl.study.objectives import Objective, objective_named
from archdsl.study.proposals.ehvi import expected_improvement
from archdsl.study.proposals.encoding import COUNTS, CostColumns, Encoder, cost_of
from archdsl.study.proposals.gaussian_process import MOST_POINTS, GaussianProcess
from archdsl.study.record import Record
from archdsl.study.scoring import Bounds

MARGIN = 0.05
"""How far the reference point lies beyond the worst values, as a share of their range."""
MOST_PREDICTED = 80
"""Predicted values that a Gaussian process is conditioned on, beside the trials."""
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Standard deviations from the middle of a predicted value to an end of its interval."""
MIDDLING = 0.25
"""The first network is one of this middle share of all by cost: what it shows concerns most of the others."""


@dataclass(frozen=True)
class Proposal:
    """An assignment and what is known about its network. values, intervals: as in `KnownCosts`"""

    assignment: Mapping[str, int]
    values: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Observations:
    """What an acquisition is conditioned on.

    done: finished trials without duplicates; costs: their values [n, names], nan where unknown
    ranks: the number of each one's front; for those without values, the number of trials
    running: what is known of the networks that are being evaluated
    chosen: the trials that Gaussian processes are conditioned on; fits: those, by column and number of features
    """

    done: Sequence[Record]
    running: Sequence[Proposal]
    costs: Array
    ranks: NDArray[np.int64]
    chosen: Sequence[int]
    fits: dict[tuple[int, int], GaussianProcess]


class Acquisition:
    """Ranks candidates for one study.

    Args:
        encoder: gives the features of assignments
        is_small: whether the candidates are all networks of the space. Then the predicted values of some also inform
            the Gaussian process, and counts are features, too.
    """

    def __init__(
        self, encoder: Encoder, objectives: Sequence[Objective], constraints: Mapping[str, Bounds], *, is_small: bool
    ):
        self.objectives, self.constraints = tuple(objectives), dict(constraints)
        self._encoder, self._is_small = encoder, is_small
        self._columns = CostColumns(objectives, list(constraints))
        self._width = len(self.objectives)

    def observe(self, records: Sequence[Record], running: Sequence[Proposal], rng: random.Random) -> Observations:
        """Read the finished trials among `records`."""
        done = [r for r in records if r.duplicate_of is None and r.assignment and r.state != "open"]
        complete = np.array([r.state == "complete" for r in done], dtype=bool)
        costs = self._columns.observed(done)
        ranks = np.full(len(done), len(done))
        if complete.any():
            ranks[complete] = non_domination_ranks(costs[complete, : self._width])
        return Observations(done, running, costs, ranks, _subset(ranks, rng), {})

    def __call__(self, candidates: Sequence[Proposal], seen: Observations, rng: random.Random) -> Array:
        """The acquisition of each candidate [n], in any unit: the highest is the best."""
        complete = seen.ranks < len(seen.done)
        if not complete.any() or not candidates:
            return self._space_filling(candidates, seen, rng)
        num, width = len(candidates), self._width
        blind = not candidates[0].values
        running = [Proposal(one.assignment) for one in seen.running] if blind else seen.running
        mean, sd = self._posterior([*candidates, *running], seen)
        costs = seen.costs[complete, :width]
        front = np.vstack([seen.costs[seen.ranks == 0, :width], mean[num:, :width]])  # as if running ones had ended
        mean, sd = mean[:num], sd[:num]
        reference = np.maximum(costs.max(axis=0), mean[:, :width].max(axis=0))
        reference += MARGIN * np.maximum(np.ptp(costs, axis=0), 1e-6)
        best = np.array([-objective.most if objective.kind == "accuracy" else -np.inf for objective in self.objectives])
        improvement = expected_improvement(mean[:, :width], sd[:, :width], front, best, reference)
        feasible = self._feasibility(mean, sd)
        if not (improvement * feasible).max() > 0:
            improvement = sd[:, :width].sum(axis=1) + 1e-12
        return improvement * feasible

    def _posterior(self, candidates: Sequence[Proposal], seen: Observations) -> tuple[Array, Array]:
        """Mean and sd of each candidate in each column of costs; sd is 0 for what is known exactly."""
        mean = self._columns.rows([c.values for c in candidates])
        sd = self._prediction_sd(candidates, mean)
        assignments = [*(c.assignment for c in candidates), *(seen.done[i].assignment for i in seen.chosen)]
        observed = seen.costs[seen.chosen]
        features = self._features(assignments, np.vstack([mean, observed]))
        here, there = features[: len(candidates)], features[len(candidates) :]
        for column, name in enumerate(self._columns.names):
            unknown, known = np.isnan(mean[:, column]), ~np.isnan(observed[:, column])
            if not unknown.any() or (column >= self._width and name not in self.constraints):
                continue
            predicted = ~unknown & (sd[:, column] > 0) & self._is_small
            used = np.flatnonzero(predicted)[:: -(-int(predicted.sum()) // MOST_PREDICTED) or 1]
            if not known.any() and not len(used):
                mean[unknown, column], sd[unknown, column] = 0.0, 1.0
                continue
            key = (column, there.shape[1])
            if self._is_small or key not in seen.fits:
                values = np.append(observed[known, column], mean[used, column])
                seen.fits[key] = GaussianProcess(np.vstack([there[known], here[used]]), values)
            mean[unknown, column], sd[unknown, column] = seen.fits[key](here[unknown])
        return mean, sd

    def _prediction_sd(self, candidates: Sequence[Proposal], mean: Array) -> Array:
        """The sd of what is known of each candidate, in each column of costs: 0 for all but predicted values."""
        sd, names = np.zeros_like(mean), self._columns.names
        for row, candidate in enumerate(candidates):
            for name, (low, high) in candidate.intervals.items():
                if name in names:
                    column = names.index(name)
                    worse = cost_of(name, np.array(high if objective_named(name).sign > 0 else low))
                    sd[row, column] = max(0.0, float(worse) - mean[row, column]) / Z
        return sd

    def _features(self, assignments: Sequence[Mapping[str, int]], costs: Array) -> Array:
        """Features [n, k] within 0 and 1: the options, and the counts where they are known of all."""
        counts = costs[:, [self._columns.names.index(name) for name in COUNTS]]
        found = self._encoder(assignments)
        if not self._is_small or np.isnan(counts).any():
            return found
        low, high = counts.min(axis=0), counts.max(axis=0)
        return np.hstack([found, (counts - low) / np.maximum(high - low, 1e-9)])

    def _feasibility(self, mean: Array, sd: Array) -> Array:
        """The probability [n] that each candidate keeps to the constraints."""
        chance = np.ones(len(mean))
        for name, bounds in self.constraints.items():
            column = self._columns.names.index(name)
            for bound, side in ((bounds.max, 1), (bounds.min, -1)):
                if bound is not None:
                    gap = objective_named(name).sign * side * (cost_of(name, np.array(float(bound))) - mean[:, column])
                    chance *= normal_cdf((gap + 1e-9) / np.maximum(sd[:, column], 1e-9))
        return chance

    def _space_filling(self, candidates: Sequence[Proposal], seen: Observations, rng: random.Random) -> Array:
        """Before there is any value: candidates of middling cost first, those farthest from all trials first. [n]"""
        tried = [*(r.assignment for r in seen.done), *(r.assignment for r in seen.running)]
        here = self._encoder([c.assignment for c in candidates])
        there = self._encoder(tried) if tried else here[[rng.randrange(len(here))]]
        gaps: Array = ((here[:, None] - there[None]) ** 2).sum(axis=2).min(axis=1)
        costs = self._columns.rows([c.values for c in candidates])[:, : self._width]
        known = ~np.isnan(costs).any(axis=0)
        place = np.argsort(np.argsort(costs[:, known].sum(axis=1), kind="stable")) / len(candidates)
        return np.where(np.abs(place - 0.5) <= MIDDLING / 2 if known.any() else True, gaps + 1, gaps * 0)


def _subset(ranks: NDArray[np.int64], rng: random.Random) -> list[int]:
    """At most `MOST_POINTS` of the trials: the best half by rank, the rest at random."""
    if len(ranks) <= MOST_POINTS:
        return list(range(len(ranks)))
    ranked = np.argsort(ranks, kind="stable").tolist()
    best, rest = ranked[: MOST_POINTS // 2], ranked[MOST_POINTS // 2 :]
    return sorted([*best, *rng.sample(rest, MOST_POINTS - len(best))])
