"""The events of a campaign, beside the general ones of `archdsl.events`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from archdsl.events import Event
from archdsl.study.record import Record

StopReason = Literal["trials", "time", "exhausted", "nothing-new", "no-gain", "interrupted", "handed-over"]


@dataclass(frozen=True)
class Began(Event):
    """sampler, why: what proposes, and the reason; known: the records of the trials that were there already"""

    sampler: str
    why: str
    known: tuple[Record, ...]


@dataclass(frozen=True)
class TrialBegan(Event):
    """A network is about to be evaluated. name: of the network; number: of the trial"""

    number: int
    name: str


@dataclass(frozen=True)
class StepBegan(Event):
    """step: `latency` or `training`"""

    number: int
    step: str


@dataclass(frozen=True)
class TrialEnded(Event):
    """Sent after the trial is safely stored."""

    record: Record


@dataclass(frozen=True)
class TrialLost(Event):
    """Another worker was given the trial, since this one had fallen silent; what it found out is not counted."""

    number: int


@dataclass(frozen=True)
class Confirming(Event):
    """Networks of the front are re-evaluated. step: `latency`, `latency@label` or `training`"""

    names: tuple[str, ...]
    step: str


@dataclass(frozen=True)
class Confirmed(Event):
    """Sent after the confirmation is safely stored. record: with the new values, and the search's in `before`"""

    record: Record


@dataclass(frozen=True)
class NotConfirmed(Event):
    """A network of the front could not be re-evaluated, and keeps the values of the search."""

    name: str
    reason: str


@dataclass(frozen=True)
class Ended(Event):
    """The campaign has ended."""

    reason: StopReason
