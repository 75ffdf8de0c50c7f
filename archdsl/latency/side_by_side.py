"""Several networks on one target, timed in turns, when some of them may not work: the others are timed still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from archdsl.errors import ArchError, MeasureError
from archdsl.latency.artefact import Artefact, Reference
from archdsl.latency.cache.quarantine import Quarantine
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.clock.intervals import Ratio
from archdsl.latency.measurement import compare, measure
from archdsl.latency.target import Target
from archdsl.latency.timing import Timing

CHECK_S = 0.1
"""Seconds of runs when networks are tried one by one to find out which does not work."""


class Entrant(Protocol):
    """One of the networks. Its name need not be unique."""

    @property
    def name(self) -> str: ...

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        """What the target's runtime runs, its files in `folder`, and what it must answer. Errors: ArchError"""
        ...


@dataclass(frozen=True)
class Standing:
    """How one network did.

    ratio: how many times longer it takes than the network called `against`; both None where it has no timing
    error: why it has no timing
    """

    entrant: Entrant
    target: Target
    timing: Timing | None = None
    ratio: Ratio | None = None
    against: str | None = None
    error: ArchError | None = None


def side_by_side(
    entrants: Sequence[Entrant],
    target: Target,
    folder: Path,
    *,
    budget_s: float = 2.0,
    deadline_s: float | None = None,
    cache: TimingCache | None = None,
    energy: bool = False,
) -> list[Standing]:
    """Every network's standing, in the order given. Ratios are to the first that works.

    A network that cannot be made, crashes its worker, runs out of memory or answers wrongly is left out, and the others
    take their turns without it. Where all work one by one but not at once (memory), each takes turns with the first.
    budget_s: seconds of timed runs of each; deadline_s: limit for each, by default as in `measure`
    cache: keeps the timings and knows how far measurements differ here; beside it crashes are counted, and what crashes
           too often is not tried (`Quarantine`)
    energy: also take the energy, where the device tells it
    """
    quarantine = None if cache is None else Quarantine(cache.path.parent)
    standings = {i: Standing(entrant, target) for i, entrant in enumerate(entrants)}
    made: dict[int, tuple[Artefact, Reference | None]] = {}
    for i, entrant in enumerate(entrants):
        try:
            artefact, reference = entrant.made(target, folder)
            if quarantine is not None:
                quarantine.check(artefact, target.fingerprint())
            made[i] = artefact, reference
        except ArchError as error:
            standings[i] = replace(standings[i], error=error)

    def in_turns(group: Sequence[int], counted: Sequence[int]) -> None:
        """Time a group; those `counted` get its timings."""
        artefacts, references = zip(*(made[i] for i in group), strict=True)
        all_s = None if deadline_s is None else len(group) * deadline_s
        found = compare(
            artefacts,
            target,
            references=references,
            budget_s=budget_s,
            deadline_s=all_s,
            cache=cache,
            energy=energy,
        )
        for i, timing, ratio in zip(group, found.timings, found.ratios, strict=True):
            if i in counted:
                standings[i] = replace(standings[i], timing=timing, ratio=ratio, against=entrants[group[0]].name)

    if made:
        try:
            in_turns(list(made), list(made))
        except MeasureError as together:
            alone = dict.fromkeys(made, together)
            if len(made) > 1:
                alone = _failing(made, target, deadline_s, quarantine)
            for i, why in alone.items():
                standings[i] = replace(standings[i], error=why)
            working = [i for i in made if i not in alone]
            if working:
                _without_the_failing(working, standings, in_turns, was_all=not alone)
    return [standings[i] for i in range(len(entrants))]


def _failing(
    made: Mapping[int, tuple[Artefact, Reference | None]],
    target: Target,
    deadline_s: float | None,
    quarantine: Quarantine | None,
) -> dict[int, MeasureError]:
    """Those that do not work by themselves, and why. Their crashes are theirs for sure, and are counted."""
    found = {}
    for i, (artefact, reference) in made.items():
        try:
            measure(
                artefact,
                target,
                reference=reference,
                budget_s=CHECK_S,
                deadline_s=deadline_s,
                quarantine=quarantine,
            )
        except MeasureError as error:
            found[i] = error
    return found


class _InTurns(Protocol):
    def __call__(self, group: Sequence[int], counted: Sequence[int]) -> None: ...


def _without_the_failing(
    working: Sequence[int], standings: dict[int, Standing], in_turns: _InTurns, *, was_all: bool
) -> None:
    """Time those that work by themselves: together, unless that has failed already; then each with the first."""
    if not was_all:
        try:
            return in_turns(working, working)
        except MeasureError:
            pass
    first = working[0]
    for i in working[1:] or working:
        group = list(dict.fromkeys((first, i)))
        try:
            in_turns(group, [i] if standings[first].timing else group)
        except MeasureError as error:
            standings[i] = replace(standings[i], error=error)
    if standings[first].timing is None and standings[first].error is None:
        try:
            in_turns([first], [first])
        except MeasureError as error:
            standings[first] = replace(standings[first], error=error)
    return None
