"""Artefact and target -> timing: from the cache, or from a worker that checks the output before it takes the time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from archdsl.errors import MeasureError
from archdsl.latency.artefact import Artefact, Reference
from archdsl.latency.cache.entry import key_of
from archdsl.latency.cache.quarantine import Quarantine
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.clock.gpu_state import GpuStates
from archdsl.latency.clock.intervals import Ratio, paired_ratio
from archdsl.latency.clock.repeatability import Repeat, place_of, spread_of, widened
from archdsl.latency.clock.runs import Pace, Readings
from archdsl.latency.clock.verdict import Conditions, judged
from archdsl.latency.failure import failed
from archdsl.latency.runtimes import RUNTIMES, OpProfile, runtime
from archdsl.latency.target import Target
from archdsl.latency.timing import Timing
from archdsl.latency.worker.attempts import run_job
from archdsl.latency.worker.frames import Message, pack_array
from archdsl.latency.worker.warm import Worker

MOST_PROFILED = 100
"""The most runs of a profile: profilers keep every op of every run in memory until the end."""

ALONE_SITTINGS = 3
"""Of a network that is measured alone; ratios, which the sittings decide, have the five of `Pace`. How far measurements
differ, which no sitting shows, makes the interval of a single one anyway."""


@dataclass(frozen=True)
class Comparison:
    """Networks timed in turns. ratios[i] says how many times longer network i took than network 0."""

    timings: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]


def measure(
    artefact: Artefact,
    target: Target,
    *,
    cache: TimingCache | None = None,
    refresh: bool = False,
    reference: Reference | None = None,
    budget_s: float = 2.0,
    deadline_s: float | None = None,
    worker: Worker | None = None,
) -> Timing:
    """The latency of one network: from `cache`, else taken in `worker` (by default a warm one that is shared).

    reference: what the network must answer; checked even when the time comes from the cache, because the cache knows
               the graph, not the weights
    refresh:   take the time again even if the cache has it
    cache:     also knows how far measurements differ here, and learns from this one; without it that is assumed
    budget_s:  seconds of timed runs; deadline_s: limit for each attempt, by default `default_deadline_s`. What may be
               an accident is tried twice (`worker.attempts.RETRIES`); with a cache, crashes are counted (`Quarantine`)

    Errors: MeasureError, whose rule is one of `failure.REASONS`.
    """
    _check_kind(artefact, target)
    fingerprint = target.fingerprint()
    known = None if cache is None or refresh else cache.get(artefact, fingerprint)
    if known is not None and reference is None:
        return known
    pace = Pace(budget_s=budget_s, sittings=ALONE_SITTINGS) if known is None else None
    deadline_s = deadline_s or default_deadline_s(target, budget_s)
    worker, job = worker or shared_worker(target), _job([artefact], target, [reference], pace)
    if cache is None:
        reply = run_job(worker, job, deadline_s=deadline_s)
    else:
        quarantine = Quarantine(cache.path.parent)
        quarantine.check(artefact, fingerprint)
        noted = partial(quarantine.note, artefact, fingerprint)
        reply = run_job(worker, job, deadline_s=deadline_s, noted=noted)
        quarantine.forgive(artefact, fingerprint)
    if known is not None:
        return known
    return _timings(reply, [artefact], target, cache)[0]


def compare(
    artefacts: Sequence[Artefact],
    target: Target,
    *,
    references: Sequence[Reference | None] | None = None,
    cache: TimingCache | None = None,
    budget_s: float = 2.0,
    deadline_s: float | None = None,
    worker: Worker | None = None,
) -> Comparison:
    """Time several networks in turns in one worker, so that their ratios can be believed on a noisy machine.

    budget_s is per network. No timing is read from `cache`, since ratios need runs taken side by side; it keeps the new
    ones, knows how far measurements differ here, and learns from these.
    Errors: MeasureError naming the network at which the worker was.
    """
    references = references or [None] * len(artefacts)
    if not artefacts or len(references) != len(artefacts):
        raise ValueError(f"one or more artefacts and as many references, got {len(artefacts)} and {len(references)}")
    for artefact in artefacts:
        _check_kind(artefact, target)
    deadline_s = deadline_s or len(artefacts) * default_deadline_s(target, budget_s)
    job = _job(artefacts, target, references, Pace(budget_s=budget_s))
    reply = run_job(worker or shared_worker(target), job, deadline_s=deadline_s)
    timings = _timings(reply, artefacts, target, cache)
    readings = _readings(reply)
    rounds, sittings = [one.round_medians() for one in readings], readings[0].round_sittings()
    ratios = tuple(paired_ratio(mine, rounds[0], sittings) for mine in rounds)
    return Comparison(tuple(timings), ratios)


def profile_runs(
    artefacts: Sequence[Artefact],
    target: Target,
    *,
    budget_s: float = 2.0,
    deadline_s: float | None = None,
    worker: Worker | None = None,
) -> list[tuple[Timing, OpProfile]]:
    """Time several networks, in turns with copies of them whose profiler is on. -> for each both results.

    budget_s: seconds of runs, for each network and again for each copy
    Errors: MeasureError naming the network at which the worker was; `no-profile` when the runtime has no profiler
    """
    for artefact in artefacts:
        _check_kind(artefact, target)
    deadline_s = deadline_s or 2 * len(artefacts) * default_deadline_s(target, budget_s)
    pace = Pace(budget_s=budget_s, max_runs=MOST_PROFILED)
    job = {**_job(artefacts, target, [None] * len(artefacts), pace), "profile": True}
    reply = run_job(worker or shared_worker(target), job, deadline_s=deadline_s)
    timings = _timings(reply, artefacts, target, None)
    try:
        profiles = [OpProfile.from_json(data) for data in reply["profiles"]]
        return list(zip(timings, profiles, strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise failed("protocol", f"the worker's profile makes no sense: {error}") from error


def default_deadline_s(target: Target, budget_s: float) -> float:
    """How long one artefact may take: starting a worker, loading, checking, warming up and the timed runs."""
    return runtime(target.runtime).loading_s + 4 * budget_s


def _check_kind(artefact: Artefact, target: Target) -> None:
    kinds = runtime(target.runtime).kinds
    if artefact.kind not in kinds:
        message = f"{target.runtime} runs {' and '.join(kinds)}, not {artefact.kind} ({artefact.name})"
        raise failed("wrong-artefact", message, where=target.runtime)


def _job(
    artefacts: Sequence[Artefact], target: Target, references: Sequence[Reference | None], pace: Pace | None
) -> Message:
    return {
        "module": RUNTIMES[target.runtime],
        "target": target.as_json(),
        "artefacts": [artefact.as_json() for artefact in artefacts],
        "references": [None if reference is None else _packed(reference) for reference in references],
        "pace": None if pace is None else asdict(pace),
    }


def _packed(reference: Reference) -> Message:
    inputs, outputs = pack_array(reference.inputs), pack_array(reference.outputs)
    return {"inputs": inputs, "outputs": outputs, "tolerance": reference.tolerance}


def _readings(reply: Message) -> list[Readings]:
    return [Readings.from_json(data) for data in reply["readings"]]


def _timings(reply: Message, artefacts: Sequence[Artefact], target: Target, cache: TimingCache | None) -> list[Timing]:
    """The timings of a worker's answer, as sure as the measurements before them let us be; `cache` keeps them."""
    try:
        cores: list[int] | None = reply["cores"]
        conditions = Conditions(
            runtime_version=str(reply["runtime_version"]),
            environment=dict(reply["environment"]),
            cores=None if cores is None else tuple(cores),
            gpu=None if reply["gpu"] is None else GpuStates.from_json(reply["gpu"]),
        )
        timings = [
            judged(readings, target, artefact.graph_hash, conditions, peak_memory_bytes=peak)
            for readings, artefact, peak in zip(_readings(reply), artefacts, reply["peak_memory_bytes"], strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise failed("protocol", f"the worker's result makes no sense: {error}") from error
    fingerprint = target.fingerprint()
    return [_known(timing, artefact, fingerprint, cache) for timing, artefact in zip(timings, artefacts, strict=True)]


def _known(timing: Timing, artefact: Artefact, fingerprint: str, cache: TimingCache | None) -> Timing:
    """The timing with the interval that earlier ones ask for, put beside them."""
    key = key_of(artefact.graph_hash, artefact.build, fingerprint)
    if not runtime(timing.runtime).analytic:
        repeats = [] if cache is None else cache.repeats(place_of(timing))
        timing = widened(timing, spread_of(timing, key, repeats))
        if cache is not None:
            cache.note(Repeat.of(key, timing))
    if cache is not None:
        cache.put(artefact, fingerprint, timing)
    return timing


_WORKERS: dict[tuple[str, str, int], Worker] = {}
_WORKERS_LOCK = threading.Lock()


def shared_worker(target: Target) -> Worker:
    """The warm worker of this process for the target's runtime, device and threads; made at the first call.

    On a GPU its address space has no limit: drivers reserve far more than they use.
    """
    key = (target.runtime, target.device, target.threads)
    with _WORKERS_LOCK:
        if key not in _WORKERS:
            limit = None if target.device == "cpu" else 0
            _WORKERS[key] = Worker(threads=target.threads, memory_bytes=limit)
        return _WORKERS[key]


def close_workers() -> None:
    """End all shared workers. They also end with this process, whatever way it ends."""
    with _WORKERS_LOCK:
        for worker in _WORKERS.values():
            worker.close()
        _WORKERS.clear()


__all__ = ["Comparison", "MeasureError", "close_workers", "compare", "measure", "shared_worker"]
