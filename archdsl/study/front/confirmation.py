"""Re-evaluate the networks on the front before it is reported.

Selecting the best of many noisy measurements is biased towards lucky ones (the winner's curse). Therefore:

1. Every network on the front is measured again, interleaved with the other members, and trained with `num_seeds`
   further seeds.
2. Its new latency replaces the old one; its accuracy becomes the mean over all seeds.
3. The front is computed again. Networks that enter it are re-evaluated in the next round.

The loop ends because each network is re-evaluated at most once. The first seeds still bias the mean, the less the more
seeds there are. Results are stored as study attributes (`archdsl:confirmed:<hash>`); trials, and so samplers, are
unchanged. An interrupted confirmation resumes.

Source: Thaler 1988, https://doi.org/10.1257/jep.2.1.191
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from archdsl.errors import ArchError, StudyError
from archdsl.events import Listener
from archdsl.latency import Timing
from archdsl.study.candidate import Assessor
from archdsl.study.events import Confirmed, Confirming, NotConfirmed
from archdsl.study.front.pareto import front_of
from archdsl.study.front.reevaluated import EACH, NetworkReevaluation, read_reevaluation, reevaluated
from archdsl.study.front.reevaluation import Reevaluation
from archdsl.study.interrupts import Interrupts
from archdsl.study.objectives import BadValues, named
from archdsl.study.record import Record, reason_of
from archdsl.study.storage.store import StudyStore
from archdsl.study.storage.study import is_storage_error
from archdsl.training.outcome import combined

MOST_INTERLEAVED = 16
"""At most so many networks are interleaved: all are in memory at once, and a kill loses the timings of one such group.
Neighbours on the front, whose order matters most, are in one group."""
_ROUND = "confirming"


class FrontConfirmation:
    """Re-evaluates the front of one study.

    Args:
        asked: what is measured and trained again; None for nothing, but earlier re-evaluations still count
        on_event: called with `Confirming`, `Confirmed` and `NotConfirmed`
    """

    def __init__(
        self,
        store: StudyStore,
        assessor: Assessor,
        asked: Reevaluation | None,
        interrupts: Interrupts,
        on_event: Listener,
    ):
        self._store, self._assessor, self._asked = store, assessor, asked or Reevaluation()
        self._interrupts, self._on_event = interrupts, on_event
        self._failed: dict[str, str] = {}

    @property
    def failed(self) -> Mapping[str, str]:
        """The networks that this process could not re-evaluate, by hash, and why not."""
        return self._failed

    def _of(self, record: Record) -> NetworkReevaluation:
        """The re-evaluation of a network so far."""
        return read_reevaluation(self._store.read(f"{EACH}{record.hash}")) or NetworkReevaluation()

    def applied(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """The records, with the new values of the networks whose re-evaluation is complete."""
        return reevaluated(records, self._store.attributes(), self._assessor.scoring)

    def confirm(self, records: Sequence[Record], left_s: float | None = None) -> None:
        """Re-evaluate the front of `records`, and the networks that enter it, until all members are re-evaluated.

        Args: left_s: seconds that are left of a time limit. Networks are measured all the same, which takes some
            seconds for each; but no training begins that would end later.
        Raises: Interrupted; nothing finished is lost, and the next call continues there
        """
        end = None if left_s is None else time.monotonic() + left_s
        self._failed.clear()
        if self._asked:
            self._complete(records)
        for members in self._rounds(records):
            hashes = [record.hash for record in members]  # valid only while no trials are added
            self._write(_ROUND, {"hashes": hashes, "trials": len(records)})
            for target in self._asked.retime:
                for first in range(0, len(members), MOST_INTERLEAVED):
                    self._measure(target, members[first : first + MOST_INTERLEAVED])
            for record in members:
                self._train(record, end)
        if self._store.read(_ROUND) is not None:
            self._write(_ROUND, None)

    def _complete(self, records: Sequence[Record]) -> None:
        """Complete interrupted re-evaluations of which nothing more is asked for now."""
        for record in {record.hash: record for record in reversed(records) if record.state == "complete"}.values():
            found = self._of(record)
            is_begun = bool(found.timings) or found.accuracy is not None
            if is_begun and not found.is_complete and not found.lacks(record, self._asked):
                self._save(record, found)

    def _rounds(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """The networks to re-evaluate next, each once: first those that an interrupted round has left, then the members
        of the front, as it is known by then, that lack something."""
        by_hash = {record.hash: record for record in reversed(records) if record.state == "complete"}
        tried: set[str | None] = set()
        round_ = self._store.read(_ROUND) or {}
        cut_short = [by_hash[hash] for hash in round_.get("hashes", ()) if hash in by_hash]
        waiting = [cut_short] if round_.get("trials") == len(records) else []
        while True:
            if waiting:
                members, is_last = waiting.pop(), False
            else:
                front = front_of(self.applied(records), self._assessor.objectives)
                members, is_last = [by_hash[member.record.hash] for member in front.members], True
            left = [r for r in members if r.hash not in tried and self._of(r).lacks(r, self._asked)]
            tried.update(record.hash for record in left)
            if left:
                yield left
            elif is_last:
                return

    def _measure(self, target: str, members: Sequence[Record]) -> None:
        todo = [record for record in members if target in self._of(record).untimed(self._asked)]
        if not todo:
            return
        self._on_event(Confirming(tuple(_name(record) for record in todo), named("latency", target)))
        found: Sequence[Timing | ArchError | str]
        try:
            with self._interrupts.interruptible():
                specs = [self._assessor.candidate(record.assignment).spec for record in todo]
                found = self._asked.retime[target](specs)
        except Exception as error:
            found = [_reason(error)] * len(todo)
        for record, timing in zip(todo, found, strict=True):
            if isinstance(timing, Timing):
                before = self._of(record)
                self._save(record, replace(before, timings={**before.timings, target: timing}))
            else:
                self._fail(record, timing if isinstance(timing, str) else _reason(timing))

    def _train(self, record: Record, end: float | None) -> None:
        before = self._of(record)
        if record.hash in self._failed or not before.is_untrained(record, self._asked):
            return
        assert self._asked.retrain is not None
        assert record.accuracy is not None
        seconds = record.accuracy.seconds * self._asked.num_seeds / len(record.accuracy.seeds)
        if end is not None and time.monotonic() + seconds > end:
            self._fail(record, "the time limit leaves no time for its training")
            return
        self._on_event(Confirming((_name(record),), "training"))
        try:
            with self._interrupts.interruptible():
                more = self._asked.retrain(self._assessor.candidate(record.assignment).spec)
        except Exception as error:
            self._fail(record, _reason(error))
        else:
            self._save(record, replace(before, accuracy=combined([record.accuracy, more])))

    def _save(self, record: Record, found: NetworkReevaluation) -> None:
        """Store what the re-evaluation of a network has found, and report it when it is complete."""
        found = replace(found, is_complete=not found.lacks(record, self._asked))
        try:
            now = found.applied_to(record, self._assessor.scoring)
        except BadValues as error:
            self._fail(record, str(error))
            return
        self._write(f"{EACH}{record.hash}", found.as_json())
        if found.is_complete:
            self._on_event(Confirmed(now))

    def _fail(self, record: Record, reason: str) -> None:
        self._failed[record.hash or ""] = reason
        self._on_event(NotConfirmed(_name(record), reason))

    def _write(self, key: str, value: Any) -> None:
        with self._store.lock.held(durable=True):
            self._store.write(key, value)


def _name(record: Record) -> str:
    return record.name or f"trial {record.number}"


def _reason(error: Exception) -> str:
    """Why a network could not be re-evaluated. An error that is not the network's is raised."""
    if isinstance(error, StudyError | OSError) or is_storage_error(error):
        raise error
    return reason_of(error)
