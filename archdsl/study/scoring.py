"""What a study's objectives and constraints make of results: values, and how far they lie beyond bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from archdsl.latency import Timing
from archdsl.study.objectives import BadValues, Objective, named
from archdsl.study.record import Record


class Bounds(Protocol):
    """At least `min`, at most `max`; None is no limit."""

    @property
    def min(self) -> float | None: ...
    @property
    def max(self) -> float | None: ...


@dataclass(frozen=True)
class Scoring:
    """objectives: in the order of the values; constraints: hard bounds by objective name"""

    objectives: Sequence[Objective]
    constraints: Mapping[str, Bounds]

    def values_of(self, record: Record) -> tuple[list[float], dict[str, float]]:
        """The objectives' values of a record, and its violations by the constraint's name. Raises: BadValues"""
        values: dict[str, float] = {"params": record.params or 0, "macs": record.macs or 0}
        if record.latency_estimate is not None:
            values["latency_estimate"] = record.latency_estimate
        for target, timing in record.timing_by_target.items():
            values.update(self.measured(timing, target))
        if record.accuracy is not None:
            values["accuracy"] = record.accuracy.mean
        return [values[objective.name] for objective in self.objectives], self.violations(values)

    def measured(self, timing: Timing, target: str) -> dict[str, float]:
        """The values that a timing gives, by the study's names. Raises: BadValues"""
        found: dict[str, float] = {
            named("latency", target): timing.median_ms,
            named("throughput", target): timing.images_per_second,
        }
        where, wanted = f"{timing.runtime} on {timing.device}", {objective.name for objective in self.objectives}
        for kind, word, value, why in (
            ("peak_memory", "memory", timing.peak_memory_bytes, ""),
            ("energy", "energy", timing.energy_mj_per_image, timing.energy_note),
        ):
            name = named(kind, target)
            if value is not None:
                found[name] = value
            elif name in wanted or name in self.constraints:
                reason = f" ({why.removeprefix('unknown: ')})" if why else ""
                raise BadValues(f"it is unknown how much {word} a network needs in {where}{reason}: leave {name} out")
        return found

    def violations(self, values: Mapping[str, float]) -> dict[str, float]:
        """How far values lie beyond the constraints, by name; constraints of values that are not there are left out."""
        return {name: violation(values[name], bounds) for name, bounds in self.constraints.items() if name in values}


def violation(value: float, bounds: Bounds) -> float:
    """How far a value lies beyond its bounds, as a share of the bound; zero or less when it keeps to them."""
    low = (bounds.min - value) / max(abs(bounds.min), 1e-12) if bounds.min is not None else float("-inf")
    high = (value - bounds.max) / max(abs(bounds.max), 1e-12) if bounds.max is not None else float("-inf")
    return max(low, high, -1e9)
