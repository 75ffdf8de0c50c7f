"""From raw runs to a judged `Timing`: the interval, and whether the machine let us measure in peace."""

from __future__ import annotations

from dataclasses import dataclass

from archdsl.latency.clock import Readings
from archdsl.latency.intervals import median_interval
from archdsl.latency.machine import clock_state
from archdsl.latency.target import Target
from archdsl.latency.timing import Timing, utc_now

LEAST_CPU_SHARE = 0.95
MOST_WAITING = 0.03
MOST_ON_OUR_CORES = 0.15
LEAST_DRIFT = 0.05


@dataclass(frozen=True)
class Conditions:
    """What the worker reports about itself: versions, its environment and where it ran."""

    runtime_version: str
    environment: dict[str, str]
    cores: tuple[int, ...] | None


def judged(readings: Readings, target: Target, graph_hash: str, conditions: Conditions) -> Timing:
    """The timing of one network from its runs."""
    import numpy as np

    interval = median_interval(readings.wall_ms)
    p5, p95, p99 = (float(p) for p in np.percentile(readings.wall_ms, [5, 95, 99]))
    contention = contention_of(readings, target)
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
        clock_state=clock_state(conditions.cores[0] if conditions.cores else 0),
        cpu_wall_ratio=readings.cpu_wall_ratio,
        load_average=readings.load_average,
        busy_neighbours=readings.usage.busy_neighbours,
        contended=contention is not None,
        contention=contention,
        drift=drift_of(readings.wall_ms),
        outliers=num_outliers(readings.wall_ms),
        graph_hash=graph_hash,
        date=utc_now(),
    )


def contention_of(readings: Readings, target: Target) -> str | None:
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
    return ", ".join(found) or None


def drift_of(wall_ms: tuple[float, ...]) -> str | None:
    """Whether the last quarter of the runs differs from the first by more than 5 % and more than chance."""
    import numpy as np

    if len(wall_ms) < 20:
        return None
    quarter = len(wall_ms) // 4
    first, last = median_interval(wall_ms[:quarter]), median_interval(wall_ms[-quarter:])
    apart = first.high < last.low or last.high < first.low
    change = (last.median - first.median) / float(np.median(wall_ms))
    if not apart or abs(change) < LEAST_DRIFT:
        return None
    return f"{'slower' if change > 0 else 'faster'} by {abs(change):.0%} while it ran"


def num_outliers(wall_ms: tuple[float, ...]) -> int:
    """Runs more than five robust standard deviations (1.4826 times the median distance) above the median."""
    import numpy as np

    x_N = np.asarray(wall_ms)
    middle = float(np.median(x_N))
    spread = max(1.4826 * float(np.median(np.abs(x_N - middle))), 1e-3 * middle)
    return int(np.sum(x_N > middle + 5 * spread))
