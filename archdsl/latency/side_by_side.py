"""Benchmark several networks on one target, of which some may fail: the others are measured all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from archdsl.errors import ArchError, MeasureError
from archdsl.latency.cache.quarantine import Quarantine
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.measurement import compare, measure
from archdsl.latency.sampling import BUDGET_S
from archdsl.latency.statistics import Ratio
from archdsl.latency.timing import Timing
from archdsl.runtimes.artefact import Artefact, Reference
from archdsl.runtimes.target import ResolvedTarget, Target, resolve

CHECK_S = 0.1
"""Seconds of runs when networks are tried one by one to find out which does not work."""


class BenchmarkSubject(Protocol):
    """A network to be benchmarked. Its name need not be unique."""

    @property
    def name(self) -> str: ...

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        """What the target's runtime runs, its files in `folder`, and what it must answer. Raises: ArchError"""
        ...


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of one network of a benchmark.

    ratio: how many times longer it takes than the network called `against`; both None where it has no timing
    error: why it has no timing
    """

    subject: BenchmarkSubject
    target: Target
    timing: Timing | None = None
    ratio: Ratio | None = None
    against: str | None = None
    error: ArchError | None = None


def side_by_side(
    subjects: Sequence[BenchmarkSubject],
    target: Target | ResolvedTarget,
    folder: Path,
    *,
    budget_s: float = BUDGET_S,
    deadline_s: float | None = None,
    cache: TimingCache | None = None,
    energy: bool = False,
) -> list[BenchmarkResult]:
    """Measure networks interleaved on one target, leaving out those that fail.

    A network that cannot be made, crashes its worker, runs out of memory or answers wrongly is left out, and the others
    are measured without it. Where all work one by one but not at once (memory), each is interleaved with the first.

    Args:
        subjects: the networks; target: as in `measure`; folder: where their files are written
        budget_s: seconds of timed runs of each
        deadline_s: limit for each, by default as in `measure`
        cache: it keeps the timings and supplies the spread of measurements; beside it crashes are counted, and what
            crashes too often is not tried (`Quarantine`)
        energy: also measure the energy, where the device counts it
    Returns: the result of each subject, in the order given; ratios are to the first that works
    Raises:  MeasureError where the target cannot be resolved
    """
    quarantine = None if cache is None else Quarantine(cache.path.parent)
    on = resolve(target)
    results = {i: BenchmarkResult(subject, on.target) for i, subject in enumerate(subjects)}
    made: dict[int, tuple[Artefact, Reference | None]] = {}
    for i, subject in enumerate(subjects):
        try:
            artefact, reference = subject.made(on.target, folder)
            if quarantine is not None:
                quarantine.check(artefact, on.fingerprint)
            made[i] = artefact, reference
        except ArchError as error:
            results[i] = replace(results[i], error=error)

    def timed(group: Sequence[int], counted: Sequence[int] | None = None) -> MeasureError | None:
        """Time a group interleaved; those `counted`, by default all, get its timings. Returns: the failure, or None"""
        artefacts, references = zip(*(made[i] for i in group), strict=True)
        all_s = None if deadline_s is None else len(group) * deadline_s
        try:
            found = compare(
                artefacts, on, references=references, budget_s=budget_s, deadline_s=all_s, cache=cache, energy=energy
            )
        except MeasureError as error:
            return error
        for i, timing, ratio in zip(group, found.timings, found.ratios, strict=True):
            if counted is None or i in counted:
                results[i] = replace(results[i], timing=timing, ratio=ratio, against=subjects[group[0]].name)
        return None

    failure = timed(list(made)) if made else None
    if failure is not None:
        failing = dict.fromkeys(made, failure) if len(made) == 1 else _failing(made, on, deadline_s, quarantine)
        for i, why in failing.items():
            results[i] = replace(results[i], error=why)
        working = [i for i in made if i not in failing]
        if working and (not failing or timed(working) is not None):  # not all at once: each with the first
            first = working[0]
            for i in working[1:]:
                failure = timed([first, i], [i] if results[first].timing else None)
                results[i] = replace(results[i], error=failure)
            if results[first].timing is None:
                failure = timed([first])
                results[first] = replace(results[first], error=failure)
    return [results[i] for i in range(len(subjects))]


def _failing(
    made: Mapping[int, tuple[Artefact, Reference | None]],
    on: ResolvedTarget,
    deadline_s: float | None,
    quarantine: Quarantine | None,
) -> dict[int, MeasureError]:
    """Those that do not work by themselves, and why. Their crashes are theirs for sure, and are counted."""
    found = {}
    for i, (artefact, reference) in made.items():
        try:
            measure(artefact, on, reference=reference, budget_s=CHECK_S, deadline_s=deadline_s, quarantine=quarantine)
        except MeasureError as error:
            found[i] = error
    return found
