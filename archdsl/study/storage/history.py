"""What a study's trials have come to, kept up to date: no step of a search looks at all of them again."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from math import isfinite

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from archdsl.study.record import PREFIX, Record, read_record


class History:
    """The trials of one study. `refresh` takes in what has happened; everything else is from the last refresh.

    trials: all of them, by number; running: those that somebody works on; waiting: those to be taken up first
    num_paid: finished trials that cost something; hashes: of the networks that are finished
    """

    def __init__(self, storage: BaseStorage, study_id: int):
        self._storage, self._study_id = storage, study_id
        self._finished: dict[int, Record] = {}
        self._order: list[int] = []
        self._open: set[int] = set()
        self._first: dict[str, int] = {}
        self._paid_rules: list[str | None] = []
        self._seconds = self._timed = 0.0
        self.trials: Sequence[FrozenTrial] = ()
        self.running: tuple[FrozenTrial, ...] = ()
        self.waiting: tuple[FrozenTrial, ...] = ()

    def refresh(self) -> None:
        """Take in new and changed trials. Costs no more than the list of trials, and a look at each open one."""
        num_seen = len(self.trials)
        self.trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        running: list[FrozenTrial] = []
        waiting: list[FrozenTrial] = []
        for number in sorted(self._open.union(range(num_seen, len(self.trials)))):
            trial = self.trials[number]
            if trial.state.is_finished():
                self._open.discard(number)
                self._take_in(read_record(trial))
                continue
            self._open.add(number)
            (running if trial.state == TrialState.RUNNING else waiting).append(trial)
        self.running, self.waiting = tuple(running), tuple(waiting)

    def _take_in(self, record: Record) -> None:
        self._finished[record.number] = record
        insort(self._order, record.number)
        if record.hash is not None:
            self._first[record.hash] = min(record.number, self._first.get(record.hash, record.number))
        if not record.cheap:
            self._paid_rules.append(record.rule if record.state == "failed" else None)
            if record.seconds is not None and isfinite(record.seconds):
                self._seconds, self._timed = self._seconds + record.seconds, self._timed + 1

    @property
    def num_paid(self) -> int:
        return len(self._paid_rules)

    @property
    def num_distinct(self) -> int:
        """How many different networks are finished."""
        return len(self._first)

    @property
    def mean_seconds(self) -> float:
        """What a network that was paid for took; 0 before there is one."""
        return self._seconds / self._timed if self._timed else 0.0

    @property
    def common_failure(self) -> str | None:
        """The rule by which every network that was paid for has failed; None when they did not fail alike."""
        rules = set(self._paid_rules)
        return rules.pop() if len(rules) == 1 else None

    def first_of(self, hash: str) -> FrozenTrial | None:
        """The first finished trial of a network."""
        number = self._first.get(hash)
        return None if number is None else self.trials[number]

    def num_cheap_at_the_end(self) -> int:
        """How many of the last finished trials in a row cost nothing."""
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
        """The records of all trials."""
        return tuple(self.record(number) for number in range(len(self.trials)))

    def finished(self) -> tuple[Record, ...]:
        """The records of those that are finished, by number."""
        return tuple(self._finished[number] for number in self._order)


def kept(trial: FrozenTrial, key: str) -> object:
    """What a trial keeps under one of our names; None for nothing."""
    return trial.user_attrs.get(PREFIX + key)
