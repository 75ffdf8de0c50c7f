"""The trials of a study, read incrementally: no step of a search reads all of them again."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from math import isfinite

from optuna.trial import FrozenTrial, TrialState

from archdsl.study.record import PREFIX, Record, read_record
from archdsl.study.storage.store import StudyStore


class History:
    """The trials of one study. `refresh` reads new and changed ones; everything else is as of the last refresh.

    trials: all of them, by number; running: those that a worker has; waiting: those that are asked for first
    """

    def __init__(self, store: StudyStore):
        self._store = store
        self._finished: dict[int, Record] = {}
        self._order: list[int] = []
        self._open: set[int] = set()
        self._first: dict[str, int] = {}
        self._rules: list[str | None] = []
        self._seconds = self._timed = 0.0
        self.trials: Sequence[FrozenTrial] = ()
        self.running: tuple[FrozenTrial, ...] = ()
        self.waiting: tuple[FrozenTrial, ...] = ()

    def refresh(self) -> None:
        """Read new and changed trials: the list of all trials is fetched, and each unfinished one is read."""
        num_seen = len(self.trials)
        self.trials = self._store.trials()
        running: list[FrozenTrial] = []
        waiting: list[FrozenTrial] = []
        for number in sorted(self._open.union(range(num_seen, len(self.trials)))):
            trial = self.trials[number]
            if trial.state.is_finished():
                self._open.discard(number)
                self._add(read_record(trial))
                continue
            self._open.add(number)
            (running if trial.state == TrialState.RUNNING else waiting).append(trial)
        self.running, self.waiting = tuple(running), tuple(waiting)

    def _add(self, record: Record) -> None:
        self._finished[record.number] = record
        insort(self._order, record.number)
        if record.hash is not None:
            self._first[record.hash] = min(record.number, self._first.get(record.hash, record.number))
        if not record.cheap:
            self._rules.append(record.rule if record.state == "failed" else None)
            if record.seconds is not None and isfinite(record.seconds):
                self._seconds, self._timed = self._seconds + record.seconds, self._timed + 1

    @property
    def num_evaluated(self) -> int:
        """Finished trials whose networks were timed or trained."""
        return len(self._rules)

    @property
    def num_distinct(self) -> int:
        """Different networks that are finished."""
        return len(self._first)

    @property
    def mean_seconds(self) -> float:
        """Mean duration of the trials that evaluated a network, in seconds; 0 before there is one."""
        return self._seconds / self._timed if self._timed else 0.0

    @property
    def common_failure(self) -> str | None:
        """The rule by which every evaluated network has failed; None when they did not all fail by one rule."""
        rules = set(self._rules)
        return rules.pop() if len(rules) == 1 else None

    def first_of(self, hash: str) -> FrozenTrial | None:
        """The first finished trial of a network; None where there is none. hash: the network's canonical one"""
        number = self._first.get(hash)
        return None if number is None else self.trials[number]

    def num_cheap_at_the_end(self) -> int:
        """How many of the last finished trials in a row evaluated nothing (duplicates and infeasible networks)."""
        count = 0
        for number in reversed(self._order):
            if not self._finished[number].cheap:
                break
            count += 1
        return count

    def record(self, number: int) -> Record:
        """The record of a trial."""
        return self._finished.get(number) or read_record(self.trials[number])

    def records(self) -> tuple[Record, ...]:
        """The records of all trials, by number."""
        return tuple(self.record(number) for number in range(len(self.trials)))

    def finished(self) -> tuple[Record, ...]:
        """The records of the finished trials, by number."""
        return tuple(self._finished[number] for number in self._order)


def read_attribute(trial: FrozenTrial, key: str) -> object:
    """An attribute that archdsl has written to a trial; None where it was not written."""
    return trial.user_attrs.get(PREFIX + key)
