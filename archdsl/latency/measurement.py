"""Artefact and target -> timing: from the cache, or from a worker that checks the output before it measures."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from archdsl.errors import MeasureError
from archdsl.failures import failed
from archdsl.latency.cache.entry import key_of
from archdsl.latency.cache.quarantine import Quarantine
from archdsl.latency.cache.timings import TimingCache
from archdsl.latency.repeatability import Repeat, place_of, spread_of, widened
from archdsl.latency.sampling import BUDGET_S, Sampling
from archdsl.latency.statistics import Ratio, paired_ratio
from archdsl.latency.summary import WorkerResult, summarize
from archdsl.latency.timing import Timing
from archdsl.latency.worker.retries import run_job
from archdsl.latency.worker.warm import Worker
from archdsl.processes.frames import Message, pack_array
from archdsl.runtimes.artefact import Artefact, Reference
from archdsl.runtimes.protocol import OpProfile, Runtime
from archdsl.runtimes.registry import RUNTIMES
from archdsl.runtimes.target import ResolvedTarget, Target, resolve
from archdsl.telemetry.energy import WINDOW_S, why_no_energy

MOST_PROFILED = 100
"""The most runs of a profile: profilers keep every op of every run in memory until the end."""

ALONE_SESSIONS = 3
"""Of a network that is measured alone; ratios, which the sessions decide, have the five of `Sampling`. How far
measurements differ, which no session shows, makes the interval of a single one anyway."""

SLOWEST_S = 600.0
"""So much later than the deadline a network may end whose runs, after the warm-up, are known to take longer: enough for
runs of a minute and a half."""


@dataclass(frozen=True)
class Comparison:
    """Timings of networks that were measured interleaved.

    timings: in the order given; ratios: ratios[i] is how many times longer network i takes than network 0
    """

    timings: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]


def measure(
    artefact: Artefact,
    target: Target | ResolvedTarget,
    *,
    cache: TimingCache | None = None,
    refresh: bool = False,
    reference: Reference | None = None,
    budget_s: float = BUDGET_S,
    deadline_s: float | None = None,
    worker: Worker | None = None,
    quarantine: Quarantine | None = None,
    energy: bool = False,
) -> Timing:
    """Measure the latency of one network in a worker process, or read it from the timing cache.

    Args:
        artefact: the network, in a form that the target's runtime runs
        target: where it runs; one that is not resolved yet is resolved
        cache: timings measured before. It also knows how far measurements on this machine differ, and learns from this
            one; without a cache that spread is assumed
        refresh: measure again even if the cache has a timing
        reference: what the network must answer. It is checked even when the timing comes from the cache, because the
            cache knows the graph and not the weights
        budget_s: seconds of timed runs
        deadline_s: limit of each attempt, by default `default_deadline_s` and up to SLOWEST_S more for a slow network.
            A failure that may be an accident is tried again (`worker.retries.RETRIES`)
        worker: by default a warm one, which this process shares
        quarantine: where crashes are counted and looked up, by default beside the cache, if there is one
        energy: also measure the energy, where the device counts it; about a second more. A cached timing without it is
            measured again
    Returns: the timing, in milliseconds for one whole batch
    Raises:  MeasureError, whose rule is one of `failures.REASONS`
    Example:
        >>> from archdsl.runtimes.artefact import Artefact
        >>> network = Artefact("null", graph_hash="a network", input_shape=(3, 32, 32), macs=40_000_000)
        >>> str(measure(network, Target("null")))
        '2.0500 ms ± 0.0000'
    """
    on = _resolved(target, [artefact])
    known = None if cache is None or refresh else cache.get(artefact, on.fingerprint)
    energy = energy and not on.runtime.analytic
    if known is not None and energy and known.energy_mj_per_image is None and why_no_energy(on.target.device) is None:
        known = None
    if known is not None and reference is None:
        return known
    sampling = Sampling(budget_s=budget_s, sessions=ALONE_SESSIONS) if known is None else None
    result = _run(
        [artefact],
        on,
        [reference],
        sampling,
        budget_s=budget_s,
        deadline_s=deadline_s,
        worker=worker,
        quarantine=quarantine or _quarantine_beside(cache),
        energy=energy,
    )
    return _timings(result, [artefact], on, cache)[0] if known is None else known


def compare(
    artefacts: Sequence[Artefact],
    target: Target | ResolvedTarget,
    *,
    references: Sequence[Reference | None] | None = None,
    cache: TimingCache | None = None,
    budget_s: float = BUDGET_S,
    deadline_s: float | None = None,
    worker: Worker | None = None,
    energy: bool = False,
) -> Comparison:
    """Measure several networks interleaved in one worker, so that their ratios hold on a noisy machine.

    Args:
        artefacts: one or more networks; target: as in `measure`
        references: what each must answer, in the same order; None for a network that is not checked
        cache: it keeps the new timings and supplies the spread of measurements. No timing is read from it, since a
            ratio needs runs taken side by side. With it no network in quarantine is tried; a crash is counted only
            where one network is measured, since of several it is unknown which one crashed
        budget_s: seconds of timed runs of each network
        deadline_s: limit for all together, by default the sum of what `measure` allows each
        worker: as in `measure`
        energy: also measure the energy of each network, one after the other, after the interleaved runs
    Returns: the timings and the ratios to the first network
    Raises:  MeasureError, which names the network at which the worker was; ValueError without artefacts, or where the
        references are not as many
    Example:
        >>> from archdsl.runtimes.artefact import Artefact
        >>> small = Artefact("null", graph_hash="small", input_shape=(3, 32, 32), macs=19_000_000)
        >>> large = Artefact("null", graph_hash="large", input_shape=(3, 32, 32), macs=39_000_000)
        >>> str(compare([small, large], Target("null")).ratios[1])
        '2.00 (2.00–2.00)'
    """
    references = references or [None] * len(artefacts)
    if not artefacts or len(references) != len(artefacts):
        raise ValueError(f"one or more artefacts and as many references, got {len(artefacts)} and {len(references)}")
    on = _resolved(target, artefacts)
    result = _run(
        artefacts,
        on,
        references,
        Sampling(budget_s=budget_s),
        budget_s=budget_s,
        deadline_s=deadline_s,
        worker=worker,
        quarantine=_quarantine_beside(cache),
        energy=energy and not on.runtime.analytic,
    )
    timings = _timings(result, artefacts, on, cache)
    rounds, sessions = [one.round_medians() for one in result.readings], result.readings[0].round_sessions()
    return Comparison(tuple(timings), tuple(paired_ratio(mine, rounds[0], sessions) for mine in rounds))


def profile_runs(
    artefacts: Sequence[Artefact],
    target: Target | ResolvedTarget,
    *,
    budget_s: float = BUDGET_S,
    deadline_s: float | None = None,
    worker: Worker | None = None,
) -> list[tuple[Timing, OpProfile]]:
    """Measure several networks, interleaved with copies of them whose profiler is on, and return both results of each.

    budget_s: seconds of runs, for each network and again for each copy
    Raises: MeasureError naming the network at which the worker was; `no-profile` when the runtime has no profiler
    """
    on = _resolved(target, artefacts)
    sampling, references = Sampling(budget_s=budget_s, max_runs=MOST_PROFILED), [None] * len(artefacts)
    result = _run(
        artefacts, on, references, sampling, budget_s=budget_s, deadline_s=deadline_s, worker=worker, profile=True
    )
    timings = _timings(result, artefacts, on, None)
    if len(result.profiles) != len(timings):
        raise failed("protocol", f"the worker made {len(result.profiles)} profiles of {len(timings)} networks")
    return list(zip(timings, result.profiles, strict=True))


def _resolved(target: Target | ResolvedTarget, artefacts: Sequence[Artefact]) -> ResolvedTarget:
    """The target on this machine. Raises: MeasureError (`wrong-artefact`) when its runtime does not run an artefact"""
    on = resolve(target)
    name, kinds = on.target.runtime, on.runtime.kinds
    for artefact in artefacts:
        if artefact.kind not in kinds:
            message = f"{name} runs {' and '.join(kinds)}, not {artefact.kind} ({artefact.name})"
            raise failed("wrong-artefact", message, where=name)
    return on


def _run(
    artefacts: Sequence[Artefact],
    on: ResolvedTarget,
    references: Sequence[Reference | None],
    sampling: Sampling | None,
    *,
    budget_s: float,
    deadline_s: float | None,
    worker: Worker | None,
    quarantine: Quarantine | None = None,
    energy: bool = False,
    profile: bool = False,
) -> WorkerResult:
    """Have a worker load, check and (with `sampling`) time the artefacts.

    Raises: MeasureError as `run_job`; `quarantined`; `protocol` when the answer is not a result
    """
    job: Message = {
        "module": RUNTIMES[on.target.runtime],
        "target": on.target.as_json(),
        "artefacts": [artefact.as_json() for artefact in artefacts],
        "references": [None if reference is None else _packed(reference) for reference in references],
        "pace": None if sampling is None else asdict(sampling),
        "energy": energy,
        "profile": profile,
    }
    if deadline_s is None:
        num_loaded = len(artefacts) * (2 if profile else 1)
        deadline_s = num_loaded * default_deadline_s(on.runtime, budget_s, energy=energy)
        job["more_s"] = num_loaded * SLOWEST_S
    run = partial(run_job, worker or shared_worker(on.target), job, deadline_s=deadline_s)
    if quarantine is None:
        reply = run()
    else:
        for artefact in artefacts:
            quarantine.check(artefact, on.fingerprint)
        alone = len(artefacts) == 1  # of several it is unknown which one crashed
        reply = run(on_failure=partial(quarantine.note, artefacts[0], on.fingerprint)) if alone else run()
        for artefact in artefacts:
            quarantine.forgive(artefact, on.fingerprint)
    try:
        return WorkerResult.from_json(reply)
    except ValueError as error:
        raise failed("protocol", f"the worker's result makes no sense: {error}") from error


def _quarantine_beside(cache: TimingCache | None) -> Quarantine | None:
    return None if cache is None else Quarantine(cache.path.parent)


def default_deadline_s(runtime: Runtime, budget_s: float, *, energy: bool = False) -> float:
    """How long one artefact may take: starting a worker, loading, checking, warming up, the timed runs, the energy."""
    return runtime.loading_s + 4 * (budget_s + energy * WINDOW_S)


def _packed(reference: Reference) -> Message:
    inputs, outputs = pack_array(reference.inputs), pack_array(reference.outputs)
    return {"inputs": inputs, "outputs": outputs, "tolerance": reference.tolerance}


def _timings(
    result: WorkerResult, artefacts: Sequence[Artefact], on: ResolvedTarget, cache: TimingCache | None
) -> list[Timing]:
    """The timings of a worker's answer, their intervals widened by earlier measurements; `cache` keeps them."""
    energies = result.energy or (None,) * len(artefacts)
    try:
        timings = [
            summarize(samples, on, artefact.graph_hash, result, peak_memory_bytes=peak, energy=energy)
            for samples, artefact, peak, energy in zip(
                result.readings, artefacts, result.peak_memory_bytes, energies, strict=True
            )
        ]
    except ValueError as error:
        raise failed("protocol", f"the worker's result makes no sense: {error}") from error
    return [_known(timing, artefact, on, cache) for timing, artefact in zip(timings, artefacts, strict=True)]


def _known(timing: Timing, artefact: Artefact, on: ResolvedTarget, cache: TimingCache | None) -> Timing:
    """The timing, its interval widened by what earlier measurements in the cache have shown, and kept there."""
    key = key_of(artefact.graph_hash, artefact.build, on.fingerprint)
    if not on.runtime.analytic:
        repeats = [] if cache is None else cache.repeats(place_of(timing))
        timing = widened(timing, spread_of(timing, key, repeats))
        if cache is not None:
            cache.note(Repeat.of(key, timing))
    if cache is not None:
        cache.put(artefact, on.fingerprint, timing)
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
