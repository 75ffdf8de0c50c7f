"""Which network to pay for next, when most of what counts is known before anything is paid.

Parameters and MACs of a network are known at once, its latency often (a table), or nearly (a predictor); what costs is
the training. So many candidates are looked at: all networks of a small space, of a large one children of the front and
random ones. What is not known is guessed by a surrogate from the trials so far, and the candidate with the highest
expected hypervolume improvement is proposed: new, valid, and within the constraints as far as is known.

Costs are compared by their logarithms (a tenth faster counts the same for a fast network as for a slow one), accuracy
as it is. A proposal depends on the finished and running trials, the study's seed and the trial's number, on nothing
else: there is no state to lose.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from math import nan, prod
from statistics import NormalDist, median
from typing import TYPE_CHECKING

import numpy as np

from archdsl.errors import ArchError
from archdsl.latency.predictor.predictor import LEVEL
from archdsl.spec.knobs import Knob, num_settings, settings
from archdsl.study.candidate import Bounds, Foreseen
from archdsl.study.hypervolume import layers
from archdsl.study.objectives import Objective, objective_named
from archdsl.study.proposals.improvement import expected_improvement, normal_cdf
from archdsl.study.proposals.operators import Pickable, Picks, crossed, mutated
from archdsl.study.proposals.surrogate import MOST_POINTS, Surrogate
from archdsl.study.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MOST_LISTED = 512
"""Spaces with at most so many settings are listed; looking at each of them once takes a second or a few."""
CHILDREN = 300
"""Candidates of a proposal in a larger space."""
MOST_LOOKED_AT = 8
"""Of those, so many are built at a time to find out what is known about them; a graph takes some milliseconds."""
FEWEST_PARENTS = 4
MARGIN = 0.05
"""How far the reference point lies beyond the worst values, as a share of their range."""
COUNTS = ("params", "macs")
MOST_TAUGHT = 80
"""Estimates that a surrogate learns from, beside the trials."""
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Standard deviations from the middle of an estimate to an end of its interval."""
MIDDLING = 0.25
"""The first network is one of this middle share of all by cost: what it teaches concerns most of the others."""


@dataclass(frozen=True)
class _Candidate:
    """A setting and what is known about it. intervals: as in `Foreseen`, of what is only estimated"""

    picks: Mapping[str, int]
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Trials:
    """What a proposal goes by.

    done: finished trials that are no duplicates; observed: what they came to, as costs [n, names], nan where unknown
    ranks: the number of each one's front; of those without values, the number of trials
    chosen: those that surrogates learn from; fits: the surrogates, by column and number of features
    """

    done: Sequence[Record]
    running: Sequence[Record]
    observed: Array
    ranks: NDArray[np.int64]
    chosen: Sequence[int]
    fits: dict[tuple[int, int], Surrogate]


Key = tuple[int, ...]
Foresee = Callable[[Mapping[str, int]], Foreseen]
"""Picks -> what is known. Raises ArchError when they are no valid network."""


class Proposer:
    """Proposes networks for one study.

    objectives, constraints: the study's; seed: the study's
    foresee: called once for each setting that is looked at; its answers must not change while the study lives
    """

    def __init__(
        self,
        space: Pickable,
        objectives: Sequence[Objective],
        foresee: Foresee,
        *,
        constraints: Mapping[str, Bounds] | None = None,
        seed: int = 0,
    ):
        self.space, self.objectives, self.constraints = space, tuple(objectives), dict(constraints or {})
        self.foresee, self.seed = foresee, seed
        self._foreseen: dict[Key, Foreseen | None] = {}
        self._encoder = Encoder(space.knobs)
        named = [objective.name for objective in objectives]
        self._names = [*named, *(name for name in (*self.constraints, *COUNTS) if name not in named)]
        self._names = list(dict.fromkeys(self._names))
        self._top = tuple(knob for knob in space.knobs if knob.parent is None)
        self._is_small = prod(num_settings(knob) for knob in self._top) <= MOST_LISTED

    def look_ahead(self) -> None:
        """Find out what is known of all networks of a small space: seconds, in which nobody should have to wait."""
        if self._is_small:
            for picks in settings(self._top):
                self._look_up(picks)

    def propose(self, records: Sequence[Record], number: int) -> Picks | None:
        """The picks of the network that trial `number` should pay for; None when nothing new was found.

        records: all trials so far. Takes some 20 ms; the first time in a small space as long as `look_ahead`, unless
            that was called.
        """
        rng = random.Random(f"{self.seed} {number}")
        records = [record for record in records if record.number != number]  # it may be there, put back by who left it
        taken = {record.hash for record in records if record.hash is not None}
        trials = self._read(records, rng)
        if self._is_small:
            return self._best(self._known(settings(self._top), taken), trials, rng)
        pool = self._children(records, trials, rng)
        blind = [_Candidate(picks, {}) for picks in pool]
        order = iter(np.argsort(-self._worth(blind, trials, rng), kind="stable").tolist())
        while some := list(islice(order, MOST_LOOKED_AT)):
            if candidates := self._known((pool[i] for i in some), taken):
                return self._best(candidates, trials, rng)
        return None

    def _best(self, candidates: Sequence[_Candidate], trials: _Trials, rng: random.Random) -> Picks | None:
        return dict(candidates[int(self._worth(candidates, trials, rng).argmax())].picks) if candidates else None

    def _read(self, records: Sequence[Record], rng: random.Random) -> _Trials:
        done = [r for r in records if r.duplicate_of is None and r.picks and r.state != "open"]
        complete = np.array([r.state == "complete" for r in done], dtype=bool)
        observed = self._observed(done)
        ranks = np.full(len(done), len(done))
        if complete.any():
            ranks[complete] = layers(observed[complete, : len(self.objectives)])
        running = [r for r in records if r.picks and r.state == "open"]
        return _Trials(done, running, observed, ranks, _subset(ranks, rng), {})

    # --- candidates -----------------------------------------------------------------------------------------------

    def _known(self, settings: Iterable[Picks], taken: Set[str]) -> list[_Candidate]:
        """The new networks of some settings, as far as is known within the constraints; each network once."""
        found: dict[str, _Candidate] = {}
        for picks in settings:
            seen = self._look_up(picks)
            if seen is not None and seen.hash not in taken and seen.hash not in found and self._may_keep(seen):
                found[seen.hash] = _Candidate(picks, seen.values, seen.intervals)
        return list(found.values())

    def _look_up(self, picks: Picks) -> Foreseen | None:
        key = self._encoder.key(picks)
        if key not in self._foreseen:
            try:
                self._foreseen[key] = self.foresee(picks)
            except ArchError:
                self._foreseen[key] = None
        return self._foreseen[key]

    def _may_keep(self, seen: Foreseen) -> bool:
        return all(seen.may_keep(name, bounds) for name, bounds in self.constraints.items() if name in seen.values)

    def _children(self, records: Sequence[Record], trials: _Trials, rng: random.Random) -> list[Picks]:
        """New settings of a large space: children of the best networks, and random ones."""
        drawn = {self._encoder.key(record.picks) for record in records if record.picks}
        most = max(FEWEST_PARENTS, int((trials.ranks == 0).sum()))
        best = [i for i in np.argsort(trials.ranks, kind="stable")[:most] if trials.ranks[i] < len(trials.done)]
        parents = [trials.done[index].picks for index in best]
        found: dict[Key, Picks] = {}
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

    # --- what they are worth --------------------------------------------------------------------------------------

    def _worth(self, candidates: Sequence[_Candidate], trials: _Trials, rng: random.Random) -> Array:
        """How much is expected of each candidate. -> [n], of any unit"""
        complete = trials.ranks < len(trials.done)
        if not complete.any() or not candidates:
            return self._farness(candidates, [*trials.done, *trials.running], rng)
        num, width = len(candidates), len(self.objectives)
        blind = not candidates[0].values
        running = [_Candidate(r.picks, {}) if blind else self._open(r) for r in trials.running]
        mean, sd = self._guessed([*candidates, *running], trials)
        costs = trials.observed[complete, :width]
        front = np.vstack([trials.observed[trials.ranks == 0, :width], mean[num:, :width]])  # as if running ones ended
        mean, sd = mean[:num], sd[:num]
        reference = np.maximum(costs.max(axis=0), mean[:, :width].max(axis=0))
        reference += MARGIN * np.maximum(np.ptp(costs, axis=0), 1e-6)
        best = np.array([-objective.most if objective.kind == "accuracy" else -np.inf for objective in self.objectives])
        worth = expected_improvement(mean[:, :width], sd[:, :width], front, best, reference)
        chance = self._chance_to_keep(mean, sd)
        if not (worth * chance).max() > 0:
            worth = sd[:, :width].sum(axis=1) + 1e-12
        return worth * chance

    def _open(self, record: Record) -> _Candidate:
        seen = self._look_up(dict(record.picks))
        return _Candidate(record.picks, {}) if seen is None else _Candidate(record.picks, seen.values, seen.intervals)

    def _guessed(self, candidates: Sequence[_Candidate], trials: _Trials) -> tuple[Array, Array]:
        """Mean and sd of each candidate in each of the columns `_names`; sd is 0 for what is known exactly.

        In a small space the estimates for some candidates also teach what is guessed for the others.
        """
        mean = self._as_costs([[c.values.get(name, nan) for name in self._names] for c in candidates])
        sd = self._doubt(candidates, mean)
        picks = [*(c.picks for c in candidates), *(trials.done[i].picks for i in trials.chosen)]
        observed = trials.observed[trials.chosen]
        features = self._features(picks, np.vstack([mean, observed]))
        here, there = features[: len(candidates)], features[len(candidates) :]
        for column, name in enumerate(self._names):
            unknown, seen = np.isnan(mean[:, column]), ~np.isnan(observed[:, column])
            if not unknown.any() or (column >= len(self.objectives) and name not in self.constraints):
                continue
            estimated = ~unknown & (sd[:, column] > 0) & self._is_small
            taught = np.flatnonzero(estimated)[:: -(-int(estimated.sum()) // MOST_TAUGHT) or 1]
            if not seen.any() and not len(taught):
                mean[unknown, column], sd[unknown, column] = 0.0, 1.0
                continue
            key = (column, there.shape[1])
            if self._is_small or key not in trials.fits:
                values = np.append(observed[seen, column], mean[taught, column])
                trials.fits[key] = Surrogate(np.vstack([there[seen], here[taught]]), values)
            mean[unknown, column], sd[unknown, column] = trials.fits[key](here[unknown])
        return mean, sd

    def _doubt(self, candidates: Sequence[_Candidate], mean: Array) -> Array:
        """The sd of what is known of each candidate, in the columns `_names`: 0 for all but estimates."""
        sd = np.zeros_like(mean)
        for row, candidate in enumerate(candidates):
            for name, (low, high) in candidate.intervals.items():
                if name in self._names:
                    column = self._names.index(name)
                    worse = _cost(name, np.array(high if objective_named(name).sign > 0 else low))
                    sd[row, column] = max(0.0, float(worse) - mean[row, column]) / Z
        return sd

    def _as_costs(self, values: Sequence[Sequence[float]]) -> Array:
        """Values in the columns `_names` [n, names] less is better: accuracy as it is, all else as logarithms."""
        found = np.array(values, dtype=float).reshape(len(values), len(self._names))
        for column, name in enumerate(self._names):
            found[:, column] = _cost(name, found[:, column])
        return found

    def _observed(self, records: Sequence[Record]) -> Array:
        """What trials came to, as costs in the columns `_names`; nan where it was not taken. -> [n, names]"""
        rise = self._rise(records)
        names = list(enumerate(self._names))
        return self._as_costs([[self._taken(record, i, name, rise) for i, name in names] for record in records])

    def _taken(self, record: Record, column: int, name: str, rise: Mapping[int, float]) -> float:
        kind, _, target = name.partition("@")
        if record.values is not None and column < len(self.objectives):
            return record.values[column]
        if kind == "accuracy" and record.accuracy is not None:
            so_far = record.accuracy.mean
            return so_far if record.accuracy.is_final else so_far + rise.get(record.accuracy.epochs, nan)
        if kind == "latency" and target in record.taken:
            return record.taken[target].median_ms
        count = {"params": record.params, "macs": record.macs}.get(kind)
        return nan if count is None else float(count)

    def _rise(self, records: Sequence[Record]) -> dict[int, float]:
        """Epoch -> how much accuracy rose from there to the end, as a median over the trials that came to the end."""
        column = next((i for i, objective in enumerate(self.objectives) if objective.kind == "accuracy"), None)
        found: dict[int, list[float]] = {}
        for record in records:
            if column is not None and record.values is not None:
                for epoch, values in record.rungs.items():
                    found.setdefault(epoch, []).append(record.values[column] - values[column])
        return {epoch: median(rises) for epoch, rises in found.items()}

    def _features(self, picks: Sequence[Mapping[str, int]], rows: Array) -> Array:
        """Options, and the counts where they are known of all, each column within 0 and 1. -> [n, k]"""
        counts = rows[:, [self._names.index(name) for name in COUNTS]]
        found = self._encoder(picks)
        if not self._is_small or np.isnan(counts).any():
            return found
        low, high = counts.min(axis=0), counts.max(axis=0)
        return np.hstack([found, (counts - low) / np.maximum(high - low, 1e-9)])

    def _chance_to_keep(self, mean: Array, sd: Array) -> Array:
        """The probability that each candidate keeps to the constraints. -> [n]"""
        chance = np.ones(len(mean))
        for name, bounds in self.constraints.items():
            column = self._names.index(name)
            for bound, side in ((bounds.max, 1), (bounds.min, -1)):
                if bound is not None:
                    gap = objective_named(name).sign * side * (_cost(name, np.array(float(bound))) - mean[:, column])
                    chance *= normal_cdf((gap + 1e-9) / np.maximum(sd[:, column], 1e-9))
        return chance

    def _farness(self, candidates: Sequence[_Candidate], seen: Sequence[Record], rng: random.Random) -> Array:
        """Before there is any value: candidates of middling cost, far from what has failed, else in no order. -> [n]"""
        here = self._encoder([c.picks for c in candidates])
        there = self._encoder([r.picks for r in seen]) if seen else here[[rng.randrange(len(here))]]
        gaps: Array = ((here[:, None] - there[None]) ** 2).sum(axis=2).min(axis=1)
        costs = self._as_costs([[c.values.get(name, nan) for name in self._names] for c in candidates])
        costs = costs[:, : len(self.objectives)]
        known = ~np.isnan(costs).any(axis=0)
        place = np.argsort(np.argsort(costs[:, known].sum(axis=1), kind="stable")) / len(candidates)
        return np.where(np.abs(place - 0.5) <= MIDDLING / 2 if known.any() else True, gaps + 1, gaps * 0)


class Encoder:
    """Picks as features: a number for a knob whose options are numbers, by rank; else one column for each option.

    A knob that does not exist under some picks is 0 in all its columns.
    """

    def __init__(self, knobs: Sequence[Knob]):
        self.knobs = tuple(knobs)

    def __call__(self, settings: Sequence[Mapping[str, int]]) -> Array:
        """[n] settings -> [n, k], each column within 0 and 1."""
        columns = []
        for knob in self.knobs:
            picked = np.array([picks.get(knob.name, -1) for picks in settings])
            if _is_ordered(knob):
                columns.append(np.where(picked < 0, 0.5, picked / (len(knob.choices) - 1)))
            else:
                columns += [(picked == index) * 0.5**0.5 for index in range(len(knob.choices))]
        return np.stack(columns, axis=1) if columns else np.zeros((len(settings), 1))

    def key(self, picks: Mapping[str, int]) -> Key:
        """Equal for equal settings."""
        return tuple(picks.get(knob.name, -1) for knob in self.knobs)


def _is_ordered(knob: Knob) -> bool:
    values = [option.node.value for option in knob.choices]
    return len(values) > 1 and all(type(v) in (int, float) for v in values) and values == sorted(values)


def _cost(name: str, values: Array) -> Array:
    """Values of one name so that less is better: accuracy as it is, all else by its logarithm; nan stays nan."""
    objective = objective_named(name)
    found: Array = objective.sign * (values if objective.kind == "accuracy" else np.log(np.maximum(values, 1e-300)))
    return found


def _subset(ranks: NDArray[np.int64], rng: random.Random) -> list[int]:
    """At most `MOST_POINTS` of the trials: the best half by rank, the rest at random."""
    if len(ranks) <= MOST_POINTS:
        return list(range(len(ranks)))
    ranked = np.argsort(ranks, kind="stable").tolist()
    best, rest = ranked[: MOST_POINTS // 2], ranked[MOST_POINTS // 2 :]
    return sorted([*best, *rng.sample(rest, MOST_POINTS - len(best))])
