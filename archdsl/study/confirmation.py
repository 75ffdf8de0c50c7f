"""A front that can be believed: before it is declared, what stands on it is timed and trained again.

The best of many noisy values flatters itself: what stands on a front was partly good and partly lucky (the winner's
curse), so the lucky timings and the lucky seeds are over-represented there. The networks of the front are therefore
evaluated once more, and from then on have these values; others may take the places of those that fall, and are
confirmed in their turn, until nobody stands on the front unconfirmed. Each network is evaluated again once at most, so
it ends.

A latency is then that of the second measurement alone, for which all members were timed in turns: the first was chosen
for being low, the second was not. An accuracy is the mean over all its seeds; the first of them flatter it still, by
the less the more seeds there are.

What was found out is kept in the study, one attribute for each network (Optuna does not let finished trials be
changed), so that nothing is lost when the search is stopped in whatever way. The trials, and so what samplers learn
from, stay as they are: a study that was confirmed and is given more trials proposes what it would have proposed anyway.

Source: Thaler 1988, https://doi.org/10.1257/jep.2.1.191 (the winner's curse)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna

from archdsl.errors import ArchError, StudyError
from archdsl.latency import Timing
from archdsl.study.again import Again
from archdsl.study.candidate import Assessor
from archdsl.study.crew.interrupts import Interrupts
from archdsl.study.events import Confirmed, Confirming, Listener, NotConfirmed
from archdsl.study.front import front_of
from archdsl.study.objectives import BadValues, Objective, checked, named
from archdsl.study.opened import is_of_storage
from archdsl.study.record import PREFIX, Record, read_accuracy, read_timing
from archdsl.study.storage.owner import is_gone, is_here, owner
from archdsl.study.storage.turns import Turns
from archdsl.training import Accuracy
from archdsl.training.evaluator import combined

MOST_IN_TURNS = 16
"""So many networks take turns at most: they are all in memory at once, and a kill loses the timings of one such group.
Neighbours on the front, whose order matters most, are in one group."""
_ROUND = PREFIX + "confirming"
_EACH = PREFIX + "confirmed:"


@dataclass(frozen=True)
class Confirmation:
    """What was found out again about one network.

    timings: by the target's label; accuracy: over all seeds, those of the search included; None: not trained again
    is_complete: whether that is all that was asked for; before it is, the network keeps the values of the search
    """

    timings: Mapping[str, Timing] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    is_complete: bool = False

    def untimed(self, again: Again) -> list[str]:
        """The targets on which the network has not been timed again."""
        return [target for target in again.retime if target not in self.timings]

    def is_untrained(self, record: Record, again: Again) -> bool:
        """Whether seeds are missing that are asked for."""
        if again.retrain is None or record.accuracy is None:
            return False
        seeds = 0 if self.accuracy is None else len(self.accuracy.seeds)
        return seeds < len(record.accuracy.seeds) + again.num_seeds

    def lacks(self, record: Record, again: Again) -> bool:
        """Whether anything is left to do again."""
        return bool(self.untimed(again)) or self.is_untrained(record, again)

    def as_json(self) -> dict[str, Any]:
        return {
            "timings": {target: timing.as_json() for target, timing in self.timings.items()},
            "accuracy": None if self.accuracy is None else self.accuracy.as_json(),
            "complete": self.is_complete,
        }


def read_confirmation(data: Any) -> Confirmation | None:
    """The confirmation that `as_json` described; None for anything else."""
    if not isinstance(data, Mapping) or not isinstance(data.get("timings"), Mapping):
        return None
    timings = {str(target): read_timing(timing) for target, timing in data["timings"].items()}
    there = {target: timing for target, timing in timings.items() if timing is not None}
    is_complete = bool(data.get("complete")) and len(there) == len(timings)
    return Confirmation(there, read_accuracy(data.get("accuracy")), is_complete)


class Confirmations:
    """The confirmations of one study.

    again: what is done; None does nothing, but what was confirmed before still counts
    """

    def __init__(
        self,
        study: optuna.Study,
        turns: Turns,
        assessor: Assessor,
        again: Again | None,
        interrupts: Interrupts,
        listen: Listener,
    ):
        self._study, self._turns, self._assessor, self._again = study, turns, assessor, again or Again()
        self._interrupts, self._listen = interrupts, listen
        self._failed: dict[str, str] = {}

    @property
    def failed(self) -> Mapping[str, str]:
        """The networks that could not be evaluated again by this process, by hash, and why not."""
        return self._failed

    @property
    def busy(self) -> int | None:
        """The id of another process of this machine that is confirming this study's front; None for none."""
        holder = (self._attributes().get(_ROUND) or {}).get("owner")
        if not isinstance(holder, Mapping) or not is_here(holder) or is_gone(holder) or holder == owner():
            return None
        return int(holder["pid"])

    def _of(self, record: Record) -> Confirmation:
        """What was found out again about a network so far."""
        return read_confirmation(self._attributes().get(f"{_EACH}{record.hash}")) or Confirmation()

    def applied(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """The records with the values of their confirmations, where these are complete."""
        there = self._attributes()
        known = {r.hash: read_confirmation(there[f"{_EACH}{r.hash}"]) for r in records if f"{_EACH}{r.hash}" in there}

        def as_known(record: Record) -> Record:
            found = known.get(record.hash)
            is_there = found is not None and found.is_complete and record.state == "complete"
            return self._confirmed(record, found) if found is not None and is_there else record

        return tuple(as_known(record) for record in records)

    def confirm(self, records: Sequence[Record], left_s: float | None = None) -> None:
        """Confirm the front of `records`, whoever comes onto it included.

        left_s: seconds of a time limit that are left. Networks are timed all the same, which takes some seconds for
            each; but no training begins that would end later
        Errors: Interrupted; nothing that was finished is lost, and the next call goes on there
        """
        end = None if left_s is None else time.monotonic() + left_s
        self._failed.clear()
        if self._again:
            self._complete(records)
        try:
            for members in self._rounds(records):
                self._write(_ROUND, {**_round(members, len(records)), "owner": owner()})
                for target in self._again.retime:
                    for first in range(0, len(members), MOST_IN_TURNS):
                        self._time_again(target, members[first : first + MOST_IN_TURNS])
                for record in members:
                    self._train_again(record, end)
        except BaseException:
            with contextlib.suppress(Exception):  # whoever goes on is to evaluate the same networks first
                self._write(_ROUND, {**self._attributes()[_ROUND], "owner": None})
            raise
        if self._attributes().get(_ROUND) is not None:
            self._write(_ROUND, None)

    def _complete(self, records: Sequence[Record]) -> None:
        """Settle what was cut short, where nothing more is asked for by now."""
        for record in {record.hash: record for record in reversed(records) if record.state == "complete"}.values():
            found = self._of(record)
            is_begun = bool(found.timings) or found.accuracy is not None
            if is_begun and not found.is_complete and not found.lacks(record, self._again):
                self._keep(record, found)

    def _rounds(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """Those to confirm next, each once: first what a round that was cut short had left, then whoever is lacking
        on the front as it is known by then."""
        by_hash = {record.hash: record for record in reversed(records) if record.state == "complete"}
        tried: set[str | None] = set()
        round_ = self._attributes().get(_ROUND) or {}
        cut_short = [by_hash[hash] for hash in round_.get("hashes", ()) if hash in by_hash]
        waiting = [cut_short] if round_.get("trials") == len(records) else []
        while True:
            if waiting:
                members, is_last = waiting.pop(), False
            else:
                front = front_of(self.applied(records), self._assessor.objectives)
                members, is_last = [by_hash[member.record.hash] for member in front.members], True
            left = [r for r in members if r.hash not in tried and self._of(r).lacks(r, self._again)]
            tried.update(record.hash for record in left)
            if left:
                yield left
            elif is_last:
                return

    def _time_again(self, target: str, members: Sequence[Record]) -> None:
        todo = [record for record in members if target in self._of(record).untimed(self._again)]
        if not todo:
            return
        self._listen(Confirming(tuple(_name(record) for record in todo), named("latency", target)))
        found: Sequence[Timing | ArchError | str]
        specs = [self._assessor.candidate(record.picks).spec for record in todo]
        try:
            with self._interrupts.open():
                found = self._again.retime[target](specs)
        except Exception as error:
            found = [_said(error)] * len(todo)
        for record, timing in zip(todo, found, strict=True):
            if isinstance(timing, Timing):
                before = self._of(record)
                self._keep(record, replace(before, timings={**before.timings, target: timing}))
            else:
                self._fail(record, timing if isinstance(timing, str) else _said(timing))

    def _train_again(self, record: Record, end: float | None) -> None:
        before = self._of(record)
        if record.hash in self._failed or not before.is_untrained(record, self._again):
            return
        assert self._again.retrain is not None
        assert record.accuracy is not None
        seconds = record.accuracy.seconds * self._again.num_seeds / len(record.accuracy.seeds)
        if end is not None and time.monotonic() + seconds > end:
            self._fail(record, "the time limit leaves no time for its training")
            return
        self._listen(Confirming((_name(record),), "training"))
        try:
            with self._interrupts.open():
                more = self._again.retrain(self._assessor.candidate(record.picks).spec)
        except Exception as error:
            self._fail(record, _said(error))
        else:
            self._keep(record, replace(before, accuracy=combined([record.accuracy, more])))

    def _keep(self, record: Record, found: Confirmation) -> None:
        """Write down what was found out about a network, and say so when that is all."""
        found = replace(found, is_complete=not found.lacks(record, self._again))
        try:
            now = self._confirmed(record, found)
        except BadValues as error:
            self._fail(record, str(error))
            return
        self._write(f"{_EACH}{record.hash}", found.as_json())
        if found.is_complete:
            self._listen(Confirmed(now))

    def _fail(self, record: Record, reason: str) -> None:
        self._failed[record.hash or ""] = reason
        self._listen(NotConfirmed(_name(record), reason))

    def _confirmed(self, record: Record, found: Confirmation) -> Record:
        """The record with what was found out again. Errors: BadValues"""
        labelled = {target: timing for target, timing in found.timings.items() if target}
        new = replace(
            record,
            timing=found.timings.get("", record.timing),
            timings={**record.timings, **labelled},
            accuracy=found.accuracy or record.accuracy,
            before=record,
        )
        values, violations = self._assessor.worth(new)
        broken = [name for name, amount in violations.items() if amount > 0]
        new = replace(new, values=tuple(checked(values, self._assessor.objectives)))
        if not broken:
            return new
        reason = f"it does not keep to its bounds when evaluated again: {', '.join(broken)}"
        return replace(new, state="infeasible", rule="infeasible", reason=reason)

    # --- the study's attributes -----------------------------------------------------------------------------------

    def _attributes(self) -> Mapping[str, Any]:
        return self._study._storage.get_study_user_attrs(self._study._study_id)

    def _write(self, key: str, value: Any) -> None:
        with self._turns.taken(durable=True):
            self._study._storage.set_study_user_attr(self._study._study_id, key, value)


@dataclass(frozen=True)
class FrontChange:
    """What became of the front that the search had found.

    num_members, num_confirmed: of the front as it is now
    fell: the search's members that are not on it any more, as they are now; entered: those that are new on it
    failed: why members could not be evaluated again, by their names
    """

    num_members: int
    num_confirmed: int
    fell: tuple[Record, ...]
    entered: tuple[Record, ...]
    failed: Mapping[str, str]


def front_change(
    records: Sequence[Record], known: Sequence[Record], objectives: Sequence[Objective], failed: Mapping[str, str]
) -> FrontChange:
    """Compare the front by the search's values with the one by those that are `known` now.

    failed: why networks could not be evaluated again, by hash
    """
    then = {member.record.number for member in front_of(records, objectives).members}
    members = [member.record for member in front_of(known, objectives).members]
    now = {record.number for record in members}
    return FrontChange(
        len(members),
        sum(record.is_confirmed for record in members),
        tuple(record for record in known if record.number in then - now),
        tuple(record for record in members if record.number not in then),
        {_name(record): failed[record.hash] for record in members if record.hash is not None and record.hash in failed},
    )


def _round(members: Sequence[Record], num_trials: int) -> dict[str, Any]:
    """What is kept of the round that is under way; it holds only as long as no trials are added."""
    return {"hashes": [record.hash for record in members], "trials": num_trials}


def _name(record: Record) -> str:
    return record.name or f"trial {record.number}"


def _said(error: Exception) -> str:
    """Why a network could not be evaluated again. What is no fault of the network's is raised."""
    if isinstance(error, StudyError | OSError) or is_of_storage(error):
        raise error
    if isinstance(error, ArchError):
        return error.problems[0].message.splitlines()[0][:500]
    return f"{type(error).__name__}: {error}"[:500]
