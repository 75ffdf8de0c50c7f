"""A latency and how it was taken. Nothing in archdsl hands out a bare number of milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import floor, log10
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Timing(BaseModel):
    """The latency of one network on one target, in milliseconds for one whole batch.

    median_ms, ci_low_ms, ci_high_ms: the median and its 95 % bootstrap interval *within this run*
    p5_ms, p95_ms, p99_ms: percentiles of the single runs
    cpu_wall_ratio: CPU seconds the worker got for each second of the clock; about `threads` when left alone
    busy_neighbours: how many cores did other work meanwhile; None where the system does not say
    environment:    the variables that steer threads, as the worker saw them
    cores:          the cores the worker was pinned to; None where it was not
    clock_state:    the cores' frequency governor, or `unlocked` when nothing holds the clock
    contended, contention: somebody else used our cores, and how that showed
    drift:          the run got slower or faster while it lasted, in words; None when it did not
    outliers:       runs more than five robust standard deviations above the median
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
        if self.median_ms and self.plus_minus_ms > 0.05 * self.median_ms:
            found.append(f"this machine was too noisy: ± {self.plus_minus_ms / self.median_ms:.0%}")
        return tuple(found)

    def __str__(self) -> str:
        decimals = _decimals(self.plus_minus_ms)
        mark = " (contended)" if self.contended else ""
        return f"{self.median_ms:.{decimals}f} ms ± {self.plus_minus_ms:.{decimals}f}{mark}"

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Timing:
        """The timing that `as_json` described. Raises pydantic's ValidationError (a ValueError) on anything else."""
        return cls.model_validate_json(json.dumps(dict(data)))


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _decimals(plus_minus: float) -> int:
    """Decimals that show one digit of the uncertainty, between 1 and 4."""
    if plus_minus <= 0:
        return 4
    return min(4, max(1, -floor(log10(plus_minus))))
