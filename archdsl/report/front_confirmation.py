"""How a front came through its confirmation: in words, and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.report.front_table import value_text
from archdsl.study.confirmation import FrontChange
from archdsl.study.objectives import Objective
from archdsl.study.record import Record


@dataclass(frozen=True)
class Confirmation:
    """What became of the front that the search had found. done: what was done again, in words; '' for nothing now"""

    change: FrontChange
    done: str
    objectives: tuple[Objective, ...]

    def __str__(self) -> str:
        """`6 of 6 confirmed (timed again in turns); 1 fell off: a (latency 1.2 ms -> 1.4 ms); 1 entered: c`"""
        change = self.change
        how = f" ({self.done})" if self.done else ""
        parts = [f"{change.num_confirmed} of {change.num_members} confirmed{how}"]
        if change.fell:
            told = ", ".join(f"{_name(record)} ({changes(record, self.objectives)})" for record in change.fell)
            parts.append(f"{len(change.fell)} fell off: {told}")
        if change.entered:
            parts.append(f"{len(change.entered)} entered: {', '.join(map(_name, change.entered))}")
        parts += [f"{name} not confirmed: {reason}" for name, reason in change.failed.items()]
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The numbers, and for each network that fell off its values then and now, by the objectives' names."""
        names = [objective.name for objective in self.objectives]
        return {
            "members": self.change.num_members,
            "confirmed": self.change.num_confirmed,
            "fell_off": [
                {
                    "name": record.name,
                    "trial": record.number,
                    "in_search": dict(zip(names, (record.before or record).values or (), strict=False)),
                    "confirmed": dict(zip(names, record.values or (), strict=False)) if record.is_confirmed else None,
                    "reason": record.reason if record.state == "infeasible" else None,
                }
                for record in self.change.fell
            ],
            "entered": [record.name for record in self.change.entered],
            "failed": [{"name": name, "reason": reason} for name, reason in self.change.failed.items()],
        }


def changes(record: Record, objectives: Sequence[Objective]) -> str:
    """`accuracy 0.910 ± 0.010 → 0.860 ± 0.008`: in what a network is worse than the search had said, or why it fell."""
    before = record.before
    if before is None:
        return "others are better now"
    if record.state == "infeasible":
        return record.reason or "infeasible"
    pairs = zip(objectives, before.values or (), record.values or (), strict=True)
    worse = [one for one, then, now in pairs if one.sign * now > one.sign * then]
    told = [f"{one.name} {value_text(before, one)} → {value_text(record, one)}" for one in worse]
    return ", ".join(told) or "others are better now"


def _name(record: Record) -> str:
    return record.name or f"trial {record.number}"
