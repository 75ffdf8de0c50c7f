"""How confirming changed a front: in words, and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.report.front_table import value_text
from archdsl.study.campaign import CampaignResult
from archdsl.study.front.pareto import Front, front_of
from archdsl.study.objectives import Objective
from archdsl.study.record import Record


@dataclass(frozen=True)
class ConfirmationReport:
    """How confirming changed the front that the search had found.

    num_members, num_confirmed: of the front as it is now; confirmed members have been re-evaluated
    fell: members of the search's front that are not on it any more, with their values now; entered: new members
    failed: why members could not be re-evaluated, by their names
    done: how the networks were re-evaluated, in words; '' when none was
    """

    num_members: int
    num_confirmed: int
    fell: tuple[Record, ...]
    entered: tuple[Record, ...]
    failed: Mapping[str, str]
    done: str
    objectives: tuple[Objective, ...]

    @classmethod
    def of(cls, front: Front, result: CampaignResult, done: str) -> ConfirmationReport:
        """Compare the front by the search's values with `front`, that by the values known now."""
        then = {member.record.number for member in front_of(result.records, front.objectives).members}
        members = [member.record for member in front.members]
        now = {record.number for record in members}
        num_confirmed = sum(record.is_confirmed for record in members)
        return cls(
            len(members),
            num_confirmed,
            tuple(record for record in result.known if record.number in then - now),
            tuple(record for record in members if record.number not in then),
            {
                _name(record): result.failed[record.hash or ""]
                for record in members
                if (record.hash or "") in result.failed
            },
            done if num_confirmed else "",
            front.objectives,
        )

    def __str__(self) -> str:
        """`6 of 6 confirmed (re-measured, interleaved); 1 fell off: a (latency 1.2 ms -> 1.4 ms); 1 entered: c`"""
        how = f" ({self.done})" if self.done else ""
        parts = [f"{self.num_confirmed} of {self.num_members} confirmed{how}"]
        if self.fell:
            fell = ", ".join(f"{_name(record)} ({changes(record, self.objectives)})" for record in self.fell)
            parts.append(f"{len(self.fell)} fell off: {fell}")
        if self.entered:
            parts.append(f"{len(self.entered)} entered: {', '.join(map(_name, self.entered))}")
        parts += [f"{name} not confirmed: {reason}" for name, reason in self.failed.items()]
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The numbers, and for each network that fell off its values then and now, by the objectives' names."""
        names = [objective.name for objective in self.objectives]
        return {
            "members": self.num_members,
            "confirmed": self.num_confirmed,
            "fell_off": [
                {
                    "name": record.name,
                    "trial": record.number,
                    "in_search": dict(zip(names, (record.before or record).values or (), strict=False)),
                    "confirmed": dict(zip(names, record.values or (), strict=False)) if record.is_confirmed else None,
                    "reason": record.reason if record.state == "infeasible" else None,
                }
                for record in self.fell
            ],
            "entered": [record.name for record in self.entered],
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed.items()],
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
    worse_values = [f"{one.name} {value_text(before, one)} → {value_text(record, one)}" for one in worse]
    return ", ".join(worse_values) or "others are better now"


def _name(record: Record) -> str:
    return record.name or f"trial {record.number}"
