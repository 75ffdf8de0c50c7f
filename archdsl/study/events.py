"""What a campaign tells whoever shows its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from archdsl.study.record import Record

StopReason = Literal["trials", "time", "exhausted", "nothing-new", "no-gain", "interrupted", "handed-over"]


@dataclass(frozen=True)
class Began:
    """sampler, why: what proposes, and the reason; resumed: trials that were there already; known: their records"""

    sampler: str
    why: str
    known: tuple[Record, ...]


@dataclass(frozen=True)
class TrialBegan:
    number: int
    name: str


@dataclass(frozen=True)
class StepBegan:
    """step: `latency` or `training`"""

    number: int
    step: str


@dataclass(frozen=True)
class TrialEnded:
    """Sent after the trial is safely stored."""

    record: Record


@dataclass(frozen=True)
class TrialLost:
    """Another worker was given the trial, since this one had fallen silent; what it found out is not counted."""

    number: int


@dataclass(frozen=True)
class Ended:
    reason: StopReason


Event = Began | TrialBegan | StepBegan | TrialEnded | TrialLost | Ended
Listener = Callable[[Event], None]
