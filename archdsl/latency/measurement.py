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
from archdsl.latency.clock.energy import WINDOW_S, Energy, why_no_energy
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

SLOWEST_S = 600.0
"""A network that says after its warm-up that its runs take longer than the deadline leaves is given so much more time:
enough for runs of a minute and a half."""


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
    quarantine: Quarantine | None = None,
    energy: bool = False,
) -> Timing:
    """The latency of one network: from `cache`, else taken in `worker` (by default a warm one that is shared).

    reference: what the network must answer; checked even when the time comes from the cache, because the cache knows
               the graph, not the weights
    refresh:   take the time again even if the cache has it
    cache:     also knows how far measurements differ here, and learns from this one; without it that is assumed
    energy:    also take the energy, where the device tells it: about a second more. A timing in the cache that lacks it
               is then taken again
    budget_s:  seconds of timed runs; deadline_s: limit for each attempt, by default `default_deadline_s`, and up to
               SLOWEST_S more for a slow network. What may be an accident is tried twice (`worker.attempts.RETRIES`)
    quarantine: where crashes are counted and looked up; by default beside the cache, if there is one

    Errors: MeasureError, whose rule is one of `failure.REASONS`.
    """
    _check_kind(artefact, target)
    fingerprint = target.fingerprint()
    known = None if cache is None or refresh else cache.get(artefact, fingerprint)
    energy = energy and not target.is_analytic
    if known is not None and energy and known.energy_mj_per_image is None and why_no_energy(target.device) is None:
        known = None
    if known is not None and reference is None:
        return known
    pace = Pace(budget_s=budget_s, sittings=ALONE_SITTINGS) if known is None else None
    job = _job([artefact], target, [reference], pace, energy=energy)
    quarantine = quarantine or _quarantine_beside(cache)
    reply = _answer(job, [artefact], target, budget_s, deadline_s, worker, quarantine)
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
    energy: bool = False,
) -> Comparison:
    """Time several networks in turns in one worker, so that their ratios can be believed on a noisy machine.

    budget_s is per network, deadline_s for all together, by default as in `measure` for each; energy: as in `measure`,
    of each network by itself, after the turns. No timing is read from `cache`, since ratios need runs taken side by
    side; it keeps the new ones, knows how far measurements differ here, and learns from these. With it no network in
    quarantine is tried; a crash counts only where one network is timed, since of several nobody knows which it was.
    Errors: MeasureError naming the network at which the worker was.
    """
    references = references or [None] * len(artefacts)
    if not artefacts or len(references) != len(artefacts):
        raise ValueError(f"one or more artefacts and as many references, got {len(artefacts)} and {len(references)}")
    for artefact in artefacts:
        _check_kind(artefact, target)
    energy = energy and not target.is_analytic
    job = _job(artefacts, target, references, Pace(budget_s=budget_s), energy=energy)
    reply = _answer(job, artefacts, target, budget_s, deadline_s, worker, _quarantine_beside(cache))
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
    pace = Pace(budget_s=budget_s, max_runs=MOST_PROFILED)
    job = {**_job(artefacts, target, [None] * len(artefacts), pace), "profile": True}
    reply = _answer(job, [*artefacts, *artefacts], target, budget_s, deadline_s, worker, None)
    timings = _timings(reply, artefacts, target, None)
    try:
        profiles = [OpProfile.from_json(data) for data in reply["profiles"]]
        return list(zip(timings, profiles, strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise failed("protocol", f"the worker's profile makes no sense: {error}") from error


def _answer(
    job: Message,
    artefacts: Sequence[Artefact],
    target: Target,
    budget_s: float,
    deadline_s: float | None,
    worker: Worker | None,
    quarantine: Quarantine | None,
) -> Message:
    """The worker's answer to a job, in which it takes up each of the artefacts. Errors: as `run_job`; `quarantined`"""
    if deadline_s is None:
        deadline_s = len(artefacts) * default_deadline_s(target, budget_s, energy=job["energy"])
        job = {**job, "more_s": len(artefacts) * SLOWEST_S}
    worker = worker or shared_worker(target)
    if quarantine is None:
        return run_job(worker, job, deadline_s=deadline_s)
    fingerprint = target.fingerprint()
    for artefact in artefacts:
        quarantine.check(artefact, fingerprint)
    if len(artefacts) == 1:
        noted = partial(quarantine.note, artefacts[0], fingerprint)
        reply = run_job(worker, job, deadline_s=deadline_s, noted=noted)
    else:
        reply = run_job(worker, job, deadline_s=deadline_s)
    for artefact in artefacts:
        quarantine.forgive(artefact, fingerprint)
    return reply


def _quarantine_beside(cache: TimingCache | None) -> Quarantine | None:
    return None if cache is None else Quarantine(cache.path.parent)


def default_deadline_s(target: Target, budget_s: float, *, energy: bool = False) -> float:
    """How long one artefact may take: starting a worker, loading, checking, warming up, the timed runs, the energy."""
    return runtime(target.runtime).loading_s + 4 * (budget_s + energy * WINDOW_S)


def _check_kind(artefact: Artefact, target: Target) -> None:
    kinds = runtime(target.runtime).kinds
    if artefact.kind not in kinds:
        message = f"{target.runtime} runs {' and '.join(kinds)}, not {artefact.kind} ({artefact.name})"
        raise failed("wrong-artefact", message, where=target.runtime)


def _job(
    artefacts: Sequence[Artefact],
    target: Target,
    references: Sequence[Reference | None],
    pace: Pace | None,
    *,
    energy: bool = False,
) -> Message:
    return {
        "module": RUNTIMES[target.runtime],
        "target": target.as_json(),
        "artefacts": [artefact.as_json() for artefact in artefacts],
        "references": [None if reference is None else _packed(reference) for reference in references],
        "pace": None if pace is None else asdict(pace),
        "energy": energy,
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
        told = [Energy.from_json(data) for data in reply.get("energy", ())]
        energies: Sequence[Energy | None] = told or [None] * len(artefacts)
        timings = [
            judged(readings, target, artefact.graph_hash, conditions, peak_memory_bytes=peak, energy=energy)
            for readings, artefact, peak, energy in zip(
                _readings(reply), artefacts, reply["peak_memory_bytes"], energies, strict=True
            )
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
