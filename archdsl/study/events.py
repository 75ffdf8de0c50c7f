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
class Preparing:
    """Something is done for the whole study, before its trials go on. doing: in words"""

    doing: str


@dataclass(frozen=True)
class Noted:
    """Something to know about the whole study, as a sentence."""

    text: str


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
class Confirming:
    """Networks of the front are evaluated again. step: `latency`, `latency@label` or `training`"""

    names: tuple[str, ...]
    step: str


@dataclass(frozen=True)
class Confirmed:
    """Sent after the confirmation is safely stored. record: with the new values, and the search's in `before`"""

    record: Record


@dataclass(frozen=True)
class NotConfirmed:
    """A network of the front could not be evaluated again, and keeps the values of the search."""

    name: str
    reason: str


@dataclass(frozen=True)
class Ended:
    reason: StopReason


Doing = Preparing | Noted | TrialBegan | StepBegan | TrialEnded | TrialLost | Confirming | Confirmed | NotConfirmed
Event = Began | Doing | Ended
Listener = Callable[[Event], None]
