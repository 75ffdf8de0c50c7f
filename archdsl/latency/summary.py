"""From samples to a `Timing`: the median, its interval, and whether something disturbed the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from archdsl.json_fields import JsonFields
from archdsl.latency.sampling import Samples
from archdsl.latency.statistics import median_interval, part_medians
from archdsl.latency.timing import Timing, utc_now
from archdsl.runtimes.protocol import OpProfile
from archdsl.runtimes.target import ResolvedTarget, Target
from archdsl.statistics import student_t
from archdsl.telemetry.cpu import clock_state
from archdsl.telemetry.energy import Energy
from archdsl.telemetry.gpu import GpuStates

LEAST_CPU_SHARE = 0.95
MOST_WAITING = 0.03
MOST_ON_OUR_CORES = 0.15
LEAST_DRIFT = 0.05


@dataclass(frozen=True)
class Conditions(JsonFields):
    """What the worker reports of itself: version, environment, cores, and the GPU before and after the runs."""

    runtime_version: str
    environment: dict[str, str]
    cores: tuple[int, ...] | None
    gpu: GpuStates | None = None


@dataclass(frozen=True)
class WorkerResult(Conditions):
    """What the worker answers to a job. Lists are in the order of the networks; empty where the job did not ask for it.

    readings: the samples of the runs
    worst: the largest difference from the reference, as a share of its largest value; None for no reference
    peak_memory_bytes: of loading, checking and running; None where it is unknown
    seconds: that each step of the job took, all networks together
    """

    readings: tuple[Samples, ...] = ()
    profiles: tuple[OpProfile, ...] = ()
    worst: tuple[float | None, ...] = ()
    peak_memory_bytes: tuple[int | None, ...] = ()
    energy: tuple[Energy, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


def summarize(
    samples: Samples,
    on: ResolvedTarget,
    graph_hash: str,
    conditions: Conditions,
    *,
    peak_memory_bytes: int | None = None,
    energy: Energy | None = None,
) -> Timing:
    """The timing of one network from its own samples; `repeatability` widens its interval by what others have shown.

    Args:
        samples: of the network's runs; on: where they were taken; graph_hash: the network's
        conditions: what the worker reported about itself
        peak_memory_bytes: of loading, checking and running it; None where it is unknown
        energy: of one run of a whole batch; None where it was not asked for
    """
    import numpy as np

    interval = median_interval(samples.wall_ms, sessions=samples.sessions or None)
    p5, p95, p99 = (float(p) for p in np.percentile(samples.wall_ms, [5, 95, 99]))
    target, gpu = on.target, conditions.gpu
    contention = contention_of(samples, target, gpu)
    return Timing(
        median_ms=interval.median,
        ci_low_ms=interval.low,
        ci_high_ms=interval.high,
        p5_ms=min(p5, interval.median),
        p95_ms=max(p95, interval.median),
        p99_ms=max(p99, p95, interval.median),
        runs=len(samples.wall_ms),
        warmup=samples.warmup,
        runtime=target.runtime,
        runtime_version=conditions.runtime_version,
        device=target.device,
        device_name=on.device_name,
        precision=target.precision,
        batch=target.batch,
        threads=target.threads,
        environment=conditions.environment,
        cores=conditions.cores,
        clock_state=gpu.clock_state if gpu else clock_state(conditions.cores[0] if conditions.cores else 0),
        cpu_wall_ratio=samples.cpu_wall_ratio,
        load_average=samples.load_average,
        busy_neighbours=samples.usage.busy_neighbours,
        contended=contention is not None,
        contention=contention,
        drift=drift_of(samples.wall_ms, samples.sessions),
        outliers=num_outliers(samples.wall_ms),
        graph_hash=graph_hash,
        date=utc_now(),
        sittings=samples.num_sessions,
        peak_memory_bytes=peak_memory_bytes,
        device_state=gpu.as_state() if gpu else {},
        energy_mj_per_image=_of_each(energy.mj_per_run if energy else None, target.batch),
        energy_plus_minus_mj=_of_each(energy.plus_minus_mj if energy else None, target.batch),
        energy_note=energy.note if energy else "",
    )


def _of_each(whole: float | None, batch: int) -> float | None:
    return None if whole is None else whole / batch


def contention_of(samples: Samples, target: Target, gpu: GpuStates | None = None) -> str | None:
    """How other processes disturbed the runs, in words; None when they did not, or for a computed latency."""
    if target.is_analytic:
        return None
    found = []
    ratio = samples.cpu_wall_ratio
    if target.device == "cpu" and target.threads == 1 and ratio < LEAST_CPU_SHARE:
        found.append(f"the worker got {ratio:.0%} of its core")
    usage = samples.usage
    if usage.waited is not None and usage.waited > MOST_WAITING * target.threads:
        found.append(f"it waited for a core {usage.waited:.0%} of the time")
    if usage.others_on_ours is not None and usage.others_on_ours > MOST_ON_OUR_CORES:
        found.append(f"others used {usage.others_on_ours:.0%} of its cores")
    if gpu is not None:
        found.extend(gpu.contention())
    return ", ".join(found) or None


def drift_of(wall_ms: Sequence[float], sessions: Sequence[int] = ()) -> str | None:
    """Whether the runs got slower or faster by more than 5 % from first to last, and by more than chance; in words.

    In one session the last quarter of the runs is compared with the first. Several differ anyway, each network lying
    elsewhere; so there it is a straight line through their medians that must rise or fall, at a level of 99 %.
    """
    if len(set(sessions)) > 1:
        change = _trend(part_medians(wall_ms, sessions))
    else:
        change = _between_quarters(wall_ms)
    if abs(change) < LEAST_DRIFT:
        return None
    return f"{'slower' if change > 0 else 'faster'} by {abs(change):.0%} while it ran"


def _between_quarters(wall_ms: Sequence[float]) -> float:
    """How much slower the last quarter is than the first, as a share of the median; 0 when that may be chance."""
    import numpy as np

    if len(wall_ms) < 20:
        return 0.0
    quarter = len(wall_ms) // 4
    first, last = median_interval(wall_ms[:quarter]), median_interval(wall_ms[-quarter:])
    apart = first.high < last.low or last.high < first.low
    return (last.median - first.median) / float(np.median(wall_ms)) if apart else 0.0


def _trend(medians: Sequence[float]) -> float:
    """How much a line through the medians rises from first to last, as a share of their mean; 0 if it may be chance."""
    if len(medians) < 4:
        return 0.0
    from scipy.stats import linregress

    line = linregress(range(len(medians)), medians)
    is_sure = abs(line.slope) > student_t(0.99, len(medians) - 2) * line.stderr
    return float(line.slope) * (len(medians) - 1) / fmean(medians) if is_sure else 0.0


def num_outliers(wall_ms: tuple[float, ...]) -> int:
    """Runs more than five robust standard deviations (1.4826 times the median distance) above the median."""
    import numpy as np

    x_N = np.asarray(wall_ms)
    middle = float(np.median(x_N))
    spread = max(1.4826 * float(np.median(np.abs(x_N - middle))), 1e-3 * middle)
    return int(np.sum(x_N > middle + 5 * spread))
