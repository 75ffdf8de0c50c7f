"""Progress of long work: what producers report, and the one kind of listener that receives it.

A room adds its own events as subclasses of `Event`; a listener ignores those it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something that happened during a long piece of work."""


@dataclass(frozen=True)
class Step(Event):
    """A step of the work begins. text: what is done, in words"""

    text: str


@dataclass(frozen=True)
class Note(Event):
    """Something to know about the work as a whole. text: a sentence"""

    text: str


@dataclass(frozen=True)
class EpochEnded(Event):
    """A training finished an epoch. seed: of the training; done, of: epochs so far, and in all"""

    seed: int
    done: int
    of: int


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that does nothing."""
