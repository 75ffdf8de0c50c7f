"""Measure what a predictor needs: a call, the segments of networks, and some of the networks as a whole.

What is timed together is interleaved in one worker, so that a slow minute of the machine meets all of it. Every output
is checked against fp32 PyTorch, and every time is kept in the timing cache: a second predictor for the same networks
measures nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from archdsl.compiler import compile, identity
from archdsl.events import Listener, Step, ignore
from archdsl.failures import failed
from archdsl.ir.graph import Graph
from archdsl.language.architecture.model import Spec
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.measurement import compare
from archdsl.latency.predictor.model import LEAST_MOVES
from archdsl.latency.predictor.predictor import Calibrated, NetworkSegments, Predictor
from archdsl.latency.predictor.segments import BUILD, CALL_BUILD, call_artefact, segment_artefact, the_call
from archdsl.latency.timing import Timing
from archdsl.passes.segments import Segment
from archdsl.runtimes.adapters.null import analytic_ms
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.export import artefact_of, graph_precision
from archdsl.runtimes.reference import expected_of
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import ResolvedTarget, Target, resolve

NETWORKS = 8
"""To learn from; more say little more, and each costs a measurement."""
MOST_NETWORKS = 24
"""The most that are learnt from when the cache knows more: then the segments are what is left to doubt."""
MOST_SEGMENTS = 60
MOST_MOVES = 12
"""So many segments that only move tokens are timed, of sizes as different as there are; others are priced by them."""
MOST_WEIGHT_BYTES = 3 << 30
"""Weights of what is taken together: a worker holds each about twice."""
MOST_TOGETHER = 10
MOST_ATTEMPTS = 3
"""How often a time is taken when others use our cores meanwhile; the calmest counts."""


@dataclass(frozen=True)
class Subject:
    """Something to be timed.

    key, build: what its timing is kept by
    make: writes its artefact to a folder; drawn: its graph in the train form, for the gate, made when it is needed
    """

    name: str
    key: str
    build: str
    drawn: Callable[[], Graph]
    make: Callable[[Path], Artefact]

    @classmethod
    def call(cls, target: Target) -> Subject:
        """What calling the runtime takes, on a network of one op."""
        key, build = the_call().hash(training=False), f"{CALL_BUILD} {graph_precision(target)}"
        return cls("the call", key, build, the_call, partial(call_artefact, target))

    @classmethod
    def segment(cls, segment: Segment, target: Target) -> Subject:
        """A segment by itself, exported as a network of its own."""
        make, build = partial(segment_artefact, segment, target), f"{BUILD} {graph_precision(target)}"
        return cls(segment.name, segment.key, build, lambda: segment.graph, make)

    @classmethod
    def network(cls, spec: Spec, target: Target) -> Subject:
        """A whole network in its deploy form."""
        make, build = partial(artefact_of, spec, target), f"deploy {graph_precision(target)}"
        return cls(spec.name, identity(spec, training=False), build, partial(compile, spec), make)

    @cached_property
    def graph(self) -> Graph:
        """Its graph before the passes for deployment, made when it is first needed."""
        return self.drawn()

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, as float32."""
        return 4 * self.graph.cost().params

    def known(self, target: Target | ResolvedTarget, cache: TimingCache | None) -> Timing | None:
        """Its timing from the cache, without making its artefact."""
        if cache is None:
            return None
        label = Artefact("null", self.key, (1,), name=self.name, build=self.build)
        return cache.get(label, resolve(target).fingerprint)


class SubjectTimings(NamedTuple):
    """Timings in the order of the subjects, and how many of them were measured by this call."""

    timings: tuple[Timing, ...]
    num_measured: int


def check_can_segment(target: Target) -> ResolvedTarget:
    """The target on this machine. Raises: MeasureError for a runtime that takes only specs, or that is not installed"""
    chosen = runtime(target.runtime)
    if not target.is_analytic and "onnx" not in chosen.kinds:
        message = f"{target.runtime} is given whole specs, so parts of a network cannot be timed on it"
        hint = "predict for a runtime that takes ONNX, such as onnxruntime"
        raise failed("wrong-artefact", message, where=target.runtime, hint=hint)
    return resolve(target)


def take(
    subjects: Sequence[Subject],
    target: Target | ResolvedTarget,
    *,
    cache: TimingCache | None = None,
    budget_s: float = 2.0,
    most_together: int = MOST_TOGETHER,
    attempts: int = MOST_ATTEMPTS,
    on_event: Listener = ignore,
) -> SubjectTimings:
    """The timing of each subject: from the cache, or measured now, interleaved with others.

    budget_s: seconds of timed runs of each; most_together: subjects in one worker at a time
    attempts: as in `take_together`
    Raises: MeasureError when one cannot be timed or answers differently from PyTorch
    """
    on = resolve(target)
    found = [subject.known(on, cache) for subject in subjects]
    missing = [i for i, timing in enumerate(found) if timing is None]
    for group in _groups(missing, subjects, most_together):
        on_event(Step(f"timing {len(group)} on {on.target}: {subjects[group[0]].name} … {subjects[group[-1]].name}"))
        timings = take_together([subjects[i] for i in group], on, cache=cache, budget_s=budget_s, attempts=attempts)
        for i, timing in zip(group, timings, strict=True):
            found[i] = timing
    return SubjectTimings(tuple(timing for timing in found if timing is not None), len(missing))


def take_together(
    subjects: Sequence[Subject],
    target: Target | ResolvedTarget,
    *,
    cache: TimingCache | None = None,
    budget_s: float,
    attempts: int = 1,
) -> tuple[Timing, ...]:
    """Time all subjects now, interleaved in one worker; `cache` keeps the timings.

    attempts: how often at most while others use our cores; the calmest one counts
    """
    on = resolve(target)
    with tempfile.TemporaryDirectory(prefix="archdsl-predict-") as folder:
        artefacts = [subject.make(Path(folder)) for subject in subjects]
        gated = not on.runtime.analytic
        references = [expected_of(subject.graph, on.target.precision) for subject in subjects] if gated else None
        best = compare(artefacts, on, references=references, cache=cache, budget_s=budget_s).timings
        for _ in range(attempts - 1):
            if not any(timing.contended for timing in best):
                break
            again = compare(artefacts, on, cache=cache, budget_s=budget_s).timings
            if sum(timing.contended for timing in again) < sum(timing.contended for timing in best):
                best = again
            for artefact, timing in zip(artefacts, best, strict=True):
                if cache is not None:
                    cache.put(artefact, on.fingerprint, timing)
    return best


def _groups(missing: Sequence[int], subjects: Sequence[Subject], most: int) -> list[list[int]]:
    """In order, as many together as `most` and MOST_WEIGHT_BYTES allow; at least one."""
    groups: list[list[int]] = []
    weight = 0
    for i in missing:
        mine = subjects[i].weight_bytes
        if not groups or len(groups[-1]) >= most or weight + mine > MOST_WEIGHT_BYTES:
            groups.append([])
            weight = 0
        groups[-1].append(i)
        weight += mine
    return groups


def choose_segments(candidates: Sequence[NetworkSegments], most: int = MOST_SEGMENTS) -> list[Segment]:
    """Which segments to time when at most `most` may be: those with which most candidates are known as a whole.

    A candidate of which one segment is unknown is not predicted at all. So candidates are completed one by one, each
    time the one with which most others are complete too, for each segment that it adds; what places are left go to the
    segments that take most of most candidates. How long a segment takes is not known yet, so its share is reckoned from
    its multiply-adds and bytes. Of segments that only move tokens there are MOST_MOVES, of sizes as different as there
    are, or fewer where others need the places, but LEAST_MOVES.
    """
    share: dict[str, float] = {}
    segments: dict[str, Segment] = {}
    for parts in candidates:
        reckoned = {
            key: count * analytic_ms(parts.segments[key].cost.macs, parts.segments[key].num_bytes, 1, 1)
            for key, count in parts.counts.items()
        }
        total = sum(reckoned.values())
        for key, ms in reckoned.items():
            share[key] = share.get(key, 0.0) + ms / total
            segments.setdefault(key, parts.segments[key])
    working = sorted((s for s in segments.values() if not s.only_moves), key=lambda s: -share[s.key])
    moves = sorted((s for s in segments.values() if s.only_moves), key=lambda s: (s.num_bytes, -share[s.key]))
    num_moves = min(len(moves), MOST_MOVES, max(LEAST_MOVES, most - len(working)), most)
    return _completing(candidates, working, most - num_moves) + _spread(moves, num_moves)


def _completing(candidates: Sequence[NetworkSegments], working: Sequence[Segment], most: int) -> list[Segment]:
    """At most `most` of the segments, so that of as many candidates as may be all are among them.

    working: the segments that do more than move, the one that takes most first
    """
    import numpy as np

    if len(working) <= most:
        return list(working)
    place = {segment.key: i for i, segment in enumerate(working)}
    needs_NS = np.zeros((len(candidates), len(working)))
    for row, parts in zip(needs_NS, candidates, strict=True):
        row[[place[key] for key in parts.counts if key in place]] = 1
    chosen_S = np.zeros(len(working), dtype=bool)
    while True:
        left_NS = needs_NS * ~chosen_S
        size_N = left_NS.sum(axis=1)
        fits_N = (size_N > 0) & (chosen_S.sum() + size_N <= most)
        if not fits_N.any():
            break
        completed_N = (left_NS @ left_NS.T == size_N).sum(axis=1) - (size_N == 0).sum()  # with each one's segments
        gain_N = np.where(fits_N, completed_N / np.maximum(size_N, 1), -1.0)
        chosen_S |= left_NS[int(gain_N.argmax())] > 0
    chosen_S[np.flatnonzero(~chosen_S)[: most - chosen_S.sum()]] = True
    return [segment for segment, is_chosen in zip(working, chosen_S, strict=True) if is_chosen]


def _spread(moves: Sequence[Segment], count: int) -> list[Segment]:
    """`count` of them, in turns from each size."""
    by_size: dict[int, list[Segment]] = {}
    for segment in moves:
        by_size.setdefault(segment.num_bytes, []).append(segment)
    chosen: list[Segment] = []
    while len(chosen) < count and any(by_size.values()):
        for each in by_size.values():
            if each and len(chosen) < count:
                chosen.append(each.pop(0))
    return chosen


@dataclass(frozen=True)
class Calibration:
    """A predictor, and what was measured for it or known already.

    segments, networks: how many there are; segments_measured, networks_measured: of them now
    """

    predictor: Predictor
    segments: int
    segments_measured: int
    networks: int
    networks_measured: int


def _segment_predictor(
    candidates: Sequence[NetworkSegments],
    on: ResolvedTarget,
    take_all: Callable[..., SubjectTimings],
    cache: TimingCache | None,
    most_segments: int,
    *,
    only_known: bool,
) -> tuple[Predictor, int, int]:
    """A predictor that knows the segments of the candidates, but no network yet; how many it knows; how many it timed.

    take_all: `take` with its options
    most_segments: to be timed; a call, which every network begins with, is one of them
    only_known: time nothing; the cache says what is known, of any number of segments
    Raises: MeasureError as `take`; `unknown-segment` when nothing is known and nothing may be timed
    """
    target = on.target
    if only_known:
        chosen = list({key: segment for parts in candidates for key, segment in parts.segments.items()}.values())
    else:
        chosen = choose_segments(candidates, most_segments - 1)  # the call is one of them
    subjects = [Subject.call(target), *(Subject.segment(segment, target) for segment in chosen)]
    timings: Sequence[Timing | None]
    if only_known:
        timings, num_measured = [subject.known(on, cache) for subject in subjects], 0
    else:
        timings, num_measured = take_all(subjects, on, most_together=len(subjects))
    call, *others = timings
    if call is None:
        message = f"no segment was ever timed on {target}"
        raise failed("unknown-segment", message, where="predictor", hint="run `archdsl predict` first")
    timed = [(segment, timing) for segment, timing in zip(chosen, others, strict=True) if timing is not None]
    times_ms = {segment.key: timing.median_ms for segment, timing in timed}
    sizes = {segment.key: segment.num_bytes for segment, _ in timed if segment.only_moves}
    return Predictor(target, call.median_ms, times_ms, sizes=sizes), 1 + len(timed), num_measured


def calibrate(
    candidates: Sequence[tuple[Spec, NetworkSegments]],
    target: Target,
    *,
    cache: TimingCache | None = None,
    num_networks: int = NETWORKS,
    most_segments: int = MOST_SEGMENTS,
    segment_s: float = 0.5,
    network_s: float = 2.0,
    only_known: bool = False,
    also: Sequence[Spec] = (),
    attempts: int = MOST_ATTEMPTS,
    on_event: Listener = ignore,
) -> Calibration:
    """A predictor for the candidates: their segments are timed, then the networks among them that tell most.

    num_networks: to learn from; candidates whose timing is in the cache are taken first, up to MOST_NETWORKS of them
    also:         networks to learn from in any case
    only_known:   time nothing
    attempts:     how often at most a time is taken while others use our cores; the calmest one counts
    Raises: MeasureError as `take`
    """
    on, all_parts = check_can_segment(target), [parts for _, parts in candidates]
    timed = partial(take, cache=cache, attempts=attempts, on_event=on_event)
    predictor, num_segments, num_segments_measured = _segment_predictor(
        all_parts, on, partial(timed, budget_s=segment_s), cache, most_segments, only_known=only_known
    )
    num_measured = 0

    def learn(specs: Sequence[Spec]) -> None:
        nonlocal predictor, num_measured
        subjects = [Subject.network(spec, target) for spec in specs]
        taken = timed(subjects, on, budget_s=network_s)
        pairs = zip(specs, taken.timings, strict=True)
        predictor = predictor.learning([Calibrated(NetworkSegments.of(spec), t.median_ms, t) for spec, t in pairs])
        num_measured += taken.num_measured

    specs: dict[str, Spec] = {}
    if cache is not None:
        whole = [spec for spec, parts in candidates if not predictor.missing(parts)]
        known = [spec for spec in whole if Subject.network(spec, target).known(on, cache)]
        specs = {identity(spec, training=False): spec for spec in known[:MOST_NETWORKS]}
    if not only_known:
        specs |= {identity(spec, training=False): spec for spec in also}
    learn(list(specs.values()))
    if not only_known and len(specs) < num_networks:
        learn([candidates[i][0] for i in predictor.next_networks(all_parts, num_networks - len(specs))])
    return Calibration(predictor, num_segments, num_segments_measured, len(predictor.calibration), num_measured)
