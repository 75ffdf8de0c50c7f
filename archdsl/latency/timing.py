"""A latency and how it was measured. Nothing in archdsl returns a bare number of milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import sqrt
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from archdsl.language.text.quantities import decimals
from archdsl.latency.statistics import Spread

DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
NOISY = 0.05
"""An interval that reaches further from the median, as a share of it, is remarked on."""


class Timing(BaseModel):
    """The latency of one network on one target, in milliseconds for one whole batch.

    median_ms: of the single runs; all times are of one measurement
    ci_low_ms, ci_high_ms: 95 %: where the median lies that many such measurements, on this machine under this load,
                    have in the middle. Wider than what was seen within this one by how far others differ from it
    p5_ms, p95_ms, p99_ms: percentiles of the single runs
    runs, warmup:   how many were timed, and ran before without being counted
    sittings:       how often the network was loaded anew and timed for a part of the budget
    between_runs:   how far medians of repeated measurements differ here: their standard deviation as a share of the
                    median, as it went into the interval; 0 where the latency is computed
    repeats:        degrees of freedom of it that were learnt from repeated measurements; 0 when it is assumed
    peak_memory_bytes: the most memory that loading the network, checking it and running it took beyond what the idle
                    worker held, its runtime's library included; of a GPU its own memory. None where it cannot be read
    cpu_wall_ratio: CPU seconds the worker got for each second of the clock; about `threads` when left alone
    busy_neighbours: how many cores did other work meanwhile; None where the system does not report it
    energy_mj_per_image: millijoules for one image, of the whole device, idling included (`telemetry.energy`), measured
                    in a window of its own after the timed runs. None where it was not asked for or cannot be read
    energy_plus_minus_mj: half its 95 % interval, from differences within that window
    energy_note:    by which counter, or why there is none; empty where it was not asked for
    environment:    the variables that steer threads, as the worker saw them
    cores:          the cores the worker was pinned to; None where it was not
    clock_state:    the cores' frequency governor, or `unlocked` when nothing holds the clock; of a GPU `locked` or not
    device_state:   of a GPU its clocks, temperature, power, driver and limits (`telemetry.gpu`); of a CPU empty
    contended, contention: whether other processes used our cores, and how that showed
    drift:          the run got slower or faster while it lasted, in words; None when it did not
    outliers:       runs more than five robust standard deviations above the median

    Example:
        >>> from archdsl.latency import measure
        >>> from archdsl.runtimes.artefact import Artefact
        >>> from archdsl.runtimes.target import Target
        >>> timing = measure(Artefact("null", "a network", (3, 32, 32), macs=40_000_000), Target("null"))
        >>> timing.median_ms, timing.contended, timing.precision
        (2.05, False, 'fp32')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    median_ms: float = Field(ge=0)
    ci_low_ms: float = Field(ge=0)
    ci_high_ms: float = Field(ge=0)
    p5_ms: float = Field(ge=0)
    p95_ms: float = Field(ge=0)
    p99_ms: float = Field(ge=0)
    runs: int = Field(ge=1)
    warmup: int = Field(ge=0)
    runtime: str
    runtime_version: str
    device: str
    device_name: str
    precision: str
    batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    environment: dict[str, str]
    cores: tuple[int, ...] | None
    clock_state: str
    cpu_wall_ratio: float
    load_average: float
    busy_neighbours: float | None
    contended: bool
    contention: str | None
    drift: str | None
    outliers: int
    graph_hash: str
    date: str
    sittings: int = Field(default=1, ge=1)  # what follows has defaults: older timings are listed and exported still
    between_runs: float = Field(default=0.0, ge=0)
    repeats: int = Field(default=0, ge=0)
    peak_memory_bytes: int | None = Field(default=None, ge=0)
    device_state: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    energy_mj_per_image: float | None = Field(default=None, ge=0)
    energy_plus_minus_mj: float | None = Field(default=None, ge=0)
    energy_note: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Timing:
        if not self.ci_low_ms <= self.median_ms <= self.ci_high_ms:
            raise ValueError("ci_low_ms <= median_ms <= ci_high_ms must hold")
        if not self.p5_ms <= self.median_ms <= self.p95_ms <= self.p99_ms:
            raise ValueError("p5_ms <= median_ms <= p95_ms <= p99_ms must hold")
        return self

    @property
    def plus_minus_ms(self) -> float:
        """The larger distance from the median to an end of its interval."""
        return max(self.ci_high_ms - self.median_ms, self.median_ms - self.ci_low_ms)

    @property
    def images_per_second(self) -> float:
        return self.batch * 1000 / self.median_ms if self.median_ms else 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before believing the number; empty for a clean run."""
        found = []
        if self.contended:
            found.append(f"contended: {self.contention}")
        if self.drift:
            found.append(self.drift)
        found.extend(self._repeatability())
        return tuple(found)

    def _repeatability(self) -> list[str]:
        """What made the interval wider than `NOISY`: the runs themselves, other measurements, or not knowing them."""
        if not self.median_ms:
            return []
        whole, found = self.plus_minus_ms / self.median_ms, []
        between = Spread(self.between_runs, self.repeats).reach()
        within = sqrt(max(0.0, whole**2 - between**2))
        if within > NOISY:
            found.append(f"this machine was too noisy: ± {within:.0%}")
        if between > NOISY and self.repeats:
            found.append(f"runs here differ by ± {between:.0%}: not repeatable")
        elif between > NOISY:
            found.append(f"± {between:.0%} is assumed until it is measured again")
        return found

    def __str__(self) -> str:
        digits = decimals(self.plus_minus_ms)
        mark = " (contended)" if self.contended else ""
        return f"{self.median_ms:.{digits}f} ms ± {self.plus_minus_ms:.{digits}f}{mark}"

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Timing:
        """The timing that `as_json` described. Raises pydantic's ValidationError (a ValueError) on anything else."""
        return cls.model_validate_json(json.dumps(dict(data)))


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return date_text(datetime.now(UTC))


def date_text(date: datetime) -> str:
    """A date in UTC as every timing writes it."""
    return date.strftime(DATE_FORMAT)
