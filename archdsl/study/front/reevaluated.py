"""What the re-evaluation of networks of a front has found, as the study stores it, and the records with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from archdsl.latency import Timing
from archdsl.study.front.reevaluation import Reevaluation
from archdsl.study.objectives import checked
from archdsl.study.record import Record, read_json, read_timings
from archdsl.study.scoring import Scoring
from archdsl.training.outcome import Accuracy

EACH = "confirmed:"
"""The attribute of the study that holds a network's re-evaluation; its hash follows."""


@dataclass(frozen=True)
class NetworkReevaluation:
    """What the re-evaluation of one network has found.

    timings: by the target's label; accuracy: over all seeds, those of the search included; None: not trained again
    is_complete: whether that is all that was asked for; until then the network has the values of the search
    """

    timings: Mapping[str, Timing] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    is_complete: bool = False

    def untimed(self, asked: Reevaluation) -> list[str]:
        """The targets on which the network has not been measured again."""
        return [target for target in asked.retime if target not in self.timings]

    def is_untrained(self, record: Record, asked: Reevaluation) -> bool:
        """Whether seeds are missing that are asked for."""
        if asked.retrain is None or record.accuracy is None:
            return False
        seeds = 0 if self.accuracy is None else len(self.accuracy.seeds)
        return seeds < len(record.accuracy.seeds) + asked.num_seeds

    def lacks(self, record: Record, asked: Reevaluation) -> bool:
        """Whether any part of the re-evaluation is missing."""
        return bool(self.untimed(asked)) or self.is_untrained(record, asked)

    def as_json(self) -> dict[str, Any]:
        """What the study stores of it."""
        return {
            "timings": {target: timing.as_json() for target, timing in self.timings.items()},
            "accuracy": None if self.accuracy is None else self.accuracy.as_json(),
            "complete": self.is_complete,
        }

    def applied_to(self, record: Record, scoring: Scoring) -> Record:
        """The record with the new values. Raises: BadValues"""
        labelled = {target: timing for target, timing in self.timings.items() if target}
        new = replace(
            record,
            timing=self.timings.get("", record.timing),
            timings={**record.timings, **labelled},
            accuracy=self.accuracy or record.accuracy,
            before=record,
        )
        values, violations = scoring.values_of(new)
        broken = [name for name, amount in violations.items() if amount > 0]
        new = replace(new, values=tuple(checked(values, scoring.objectives)))
        if not broken:
            return new
        reason = f"it violates its bounds when it is re-evaluated: {', '.join(broken)}"
        return replace(new, state="infeasible", rule="infeasible", reason=reason)


def read_reevaluation(data: Any) -> NetworkReevaluation | None:
    """The re-evaluation that `NetworkReevaluation.as_json` described; None for anything else."""
    if not isinstance(data, Mapping) or not isinstance(data.get("timings"), Mapping):
        return None
    timings = read_timings(data["timings"])
    is_complete = bool(data.get("complete")) and len(timings) == len(data["timings"])
    return NetworkReevaluation(timings, read_json(Accuracy, data.get("accuracy")), is_complete)


def reevaluated(records: Sequence[Record], attributes: Mapping[str, Any], scoring: Scoring) -> tuple[Record, ...]:
    """The records, with the new values of the networks whose re-evaluation is complete. attributes: the study's"""
    known = {record.hash: read_reevaluation(attributes.get(f"{EACH}{record.hash}")) for record in records}

    def as_known(record: Record) -> Record:
        found = known[record.hash]
        is_there = found is not None and found.is_complete and record.state == "complete"
        return found.applied_to(record, scoring) if found is not None and is_there else record

    return tuple(as_known(record) for record in records)
