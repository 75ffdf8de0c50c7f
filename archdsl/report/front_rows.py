"""The front as rows of plain facts: what the table, the CSV, the specs and the picture are made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from archdsl.language import Space, Spec
from archdsl.latency import Timing
from archdsl.study.front.pareto import Front, FrontPoint
from archdsl.study.objectives import named
from archdsl.study.record import Record

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True)
class FrontRow:
    """One network of the front.

    name: unique in the front, and a valid name of a spec; spec: the network under that name
    differs: what its settings change in the base spec, `path value`, comma between them; empty for the base itself
    tied_with: names of the front's networks that are indistinguishable from it within noise
    """

    name: str
    record: Record
    spec: Spec
    differs: str
    tied_with: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The row as plain data. In a study of several targets there is a `latency@label` for each.

        in_search: of a confirmed network, what the search had found: accuracy in [0, 1], latencies in ms
        """
        record = self.record
        taken: dict[str, Timing | None] = {**record.timing_by_target} or {"": None}
        return {
            "name": self.name,
            "trial": record.number,
            "hash": record.hash,
            "accuracy": record.accuracy.as_json() if record.accuracy else None,
            **{named("latency", target): timing.as_json() if timing else None for target, timing in taken.items()},
            **({"latency_estimate_ms": record.latency_estimate} if record.latency_estimate is not None else {}),
            "confirmed": record.is_confirmed,
            "in_search": _in_search(record.before),
            "params": record.params,
            "macs": record.macs,
            "differs": self.differs,
            "tied_with": list(self.tied_with),
        }


def front_rows(front: Front, space: Space) -> tuple[FrontRow, ...]:
    """The rows, best accuracy (first objective) first."""
    names = _names(front.members)
    base = space.assignment_of(space.base)
    return tuple(
        FrontRow(
            names[member.record.number],
            member.record,
            space.spec(member.record.assignment, name=names[member.record.number]),
            differences(space, member.record.assignment, base),
            tuple(names[number] for number in member.tied_with),
        )
        for member in front.members
    )


def differences(space: Space, assignment: Mapping[str, int], base: Mapping[str, int] | None) -> str:
    """What an assignment changes against the base's; all that it sets when the space does not hold its own base."""
    found = [
        f"{choice.path} {choice.labels[assignment[choice.name]]}"
        for choice in space.active(assignment)
        if base is None or base.get(choice.name) != assignment[choice.name]
    ]
    return ", ".join(sorted(found))


def _in_search(before: Record | None) -> dict[str, float] | None:
    if before is None:
        return None
    accuracy = {"accuracy": before.accuracy.mean} if before.accuracy is not None else {}
    return {
        **accuracy,
        **{named("latency", target): timing.median_ms for target, timing in before.timing_by_target.items()},
    }


def _names(members: tuple[FrontPoint, ...]) -> dict[int, str]:
    """Trial number -> name: the design's name, or the base's with the hash; made unique and fit for a file."""
    names: dict[int, str] = {}
    for member in members:
        given = member.record.name or f"trial-{member.record.number}"
        wanted = PurePath(given).stem if given.endswith((".yaml", ".yml")) else given
        plain = _NOT_IN_NAMES.sub("_", wanted).lstrip(".-+")[:100] or f"trial-{member.record.number}"
        names[member.record.number] = plain if plain not in names.values() else f"{plain}-{member.record.number}"
    return names
