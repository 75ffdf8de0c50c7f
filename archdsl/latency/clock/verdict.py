"""From raw runs to a judged `Timing`: the interval, and whether the machine let us measure in peace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from archdsl.latency.clock.energy import Energy
from archdsl.latency.clock.gpu_state import GpuStates
from archdsl.latency.clock.intervals import median_interval, part_medians, student_t
from archdsl.latency.clock.machine import clock_state
from archdsl.latency.clock.runs import Readings
from archdsl.latency.target import Target
from archdsl.latency.timing import Timing, utc_now

LEAST_CPU_SHARE = 0.95
MOST_WAITING = 0.03
MOST_ON_OUR_CORES = 0.15
LEAST_DRIFT = 0.05


@dataclass(frozen=True)
class Conditions:
    """What the worker reports about itself: versions, its environment, where it ran, and its GPU before and after."""

    runtime_version: str
    environment: dict[str, str]
    cores: tuple[int, ...] | None
    gpu: GpuStates | None = None


def judged(
    readings: Readings,
    target: Target,
    graph_hash: str,
    conditions: Conditions,
    *,
    peak_memory_bytes: int | None = None,
    energy: Energy | None = None,
) -> Timing:
    """The timing of one network from its runs alone: what others like it were is for `repeatability` to add.

    energy: of one run of a whole batch; None where it was not asked for
    """
    import numpy as np

    interval = median_interval(readings.wall_ms, sittings=readings.sittings or None)
    p5, p95, p99 = (float(p) for p in np.percentile(readings.wall_ms, [5, 95, 99]))
    gpu = conditions.gpu
    contention = contention_of(readings, target, gpu)
    return Timing(
        median_ms=interval.median,
        ci_low_ms=interval.low,
        ci_high_ms=interval.high,
        p5_ms=min(p5, interval.median),
        p95_ms=max(p95, interval.median),
        p99_ms=max(p99, p95, interval.median),
        runs=len(readings.wall_ms),
        warmup=readings.warmup,
        runtime=target.runtime,
        runtime_version=conditions.runtime_version,
        device=target.device,
        device_name=target.device_name(),
        precision=target.precision,
        batch=target.batch,
        threads=target.threads,
        environment=conditions.environment,
        cores=conditions.cores,
        clock_state=gpu.clock_state if gpu else clock_state(conditions.cores[0] if conditions.cores else 0),
        cpu_wall_ratio=readings.cpu_wall_ratio,
        load_average=readings.load_average,
        busy_neighbours=readings.usage.busy_neighbours,
        contended=contention is not None,
        contention=contention,
        drift=drift_of(readings.wall_ms, readings.sittings),
        outliers=num_outliers(readings.wall_ms),
        graph_hash=graph_hash,
        date=utc_now(),
        sittings=readings.num_sittings,
        peak_memory_bytes=peak_memory_bytes,
        device_state=gpu.as_state() if gpu else {},
        energy_mj_per_image=_of_each(energy.mj_per_run if energy else None, target.batch),
        energy_plus_minus_mj=_of_each(energy.plus_minus_mj if energy else None, target.batch),
        energy_note=energy.note if energy else "",
    )


def _of_each(whole: float | None, batch: int) -> float | None:
    return None if whole is None else whole / batch


def contention_of(readings: Readings, target: Target, gpu: GpuStates | None = None) -> str | None:
    """How others got in the way, in words, or None when they did not (or the runtime does not run on our cores)."""
    if target.is_analytic:
        return None
    found = []
    ratio = readings.cpu_wall_ratio
    if target.device == "cpu" and target.threads == 1 and ratio < LEAST_CPU_SHARE:
        found.append(f"the worker got {ratio:.0%} of its core")
    usage = readings.usage
    if usage.waited is not None and usage.waited > MOST_WAITING * target.threads:
        found.append(f"it waited for a core {usage.waited:.0%} of the time")
    if usage.others_on_ours is not None and usage.others_on_ours > MOST_ON_OUR_CORES:
        found.append(f"others used {usage.others_on_ours:.0%} of its cores")
    if gpu is not None:
        found.extend(gpu.contention())
    return ", ".join(found) or None


def drift_of(wall_ms: Sequence[float], sittings: Sequence[int] = ()) -> str | None:
    """Whether the runs got slower or faster by more than 5 % from first to last, and by more than chance; in words.

    In one sitting the last quarter of the runs is compared with the first. Several differ anyway, each network lying
    elsewhere; so there it is a straight line through their medians that must rise or fall, at a level of 99 %.
    """
    if len(set(sittings)) > 1:
        change = _trend(part_medians(wall_ms, sittings))
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
    import numpy as np

    if len(medians) < 4:
        return 0.0
    y_S, t_S = np.asarray(medians), np.arange(len(medians)) - (len(medians) - 1) / 2
    slope = float(t_S @ y_S) / float(t_S @ t_S)
    rest = y_S - y_S.mean() - slope * t_S
    freedom = len(medians) - 2
    error = sqrt(float(rest @ rest) / freedom / float(t_S @ t_S))
    return slope * (len(medians) - 1) / float(y_S.mean()) if abs(slope) > student_t(0.99, freedom) * error else 0.0


def num_outliers(wall_ms: tuple[float, ...]) -> int:
    """Runs more than five robust standard deviations (1.4826 times the median distance) above the median."""
    import numpy as np

    x_N = np.asarray(wall_ms)
    middle = float(np.median(x_N))
    spread = max(1.4826 * float(np.median(np.abs(x_N - middle))), 1e-3 * middle)
    return int(np.sum(x_N > middle + 5 * spread))
