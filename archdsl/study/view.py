"""A study as it stands, from its storage alone: nothing is evaluated, and nothing written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from archdsl.study.front.reevaluated import reevaluated
from archdsl.study.objectives import Objective, objective_named
from archdsl.study.record import PREFIX, Record, read_record
from archdsl.study.scoring import Bounds, Scoring
from archdsl.study.storage.leases import has_expired
from archdsl.study.storage.store import own_attributes

RECENT = timedelta(minutes=30)
"""The rate is that of so long before the last trial that was finished."""


@dataclass(frozen=True)
class WorkerView:
    """A worker that has a trial. is_alive: its lease holds, and its process runs, where that can be seen from here"""

    host: str
    pid: int
    trials: tuple[int, ...]
    is_alive: bool


@dataclass(frozen=True)
class StudyView:
    """One study.

    attributes: what archdsl has written to it; objectives: in the order of the values
    records: all trials, with the values of the search; trials: the same as Optuna has them
    """

    name: str
    attributes: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    records: tuple[Record, ...]
    trials: Sequence[FrozenTrial]

    def known(self, constraints: Mapping[str, Bounds]) -> tuple[Record, ...]:
        """The records, with the new values of what was re-evaluated. constraints: of the study, by objective name"""
        return reevaluated(self.records, self.attributes, Scoring(self.objectives, constraints))

    @property
    def job(self) -> Mapping[str, Any] | None:
        """The search as plain data; None where the study does not hold it."""
        found = self.attributes.get("job")
        return found if isinstance(found, Mapping) else None

    @property
    def plan(self) -> Mapping[str, Any]:
        """What a resumed study must share."""
        found = self.attributes.get("plan")
        return found if isinstance(found, Mapping) else {}

    @property
    def num_wanted(self) -> int | None:
        """How many networks the search is to evaluate; None where that was not published."""
        budget = self.attributes.get("budget")
        wanted = budget.get("trials") if isinstance(budget, Mapping) else None
        if wanted is None and self.job is not None:
            wanted = self.job.get("trials")
        return wanted if isinstance(wanted, int) else None

    @property
    def evaluated(self) -> tuple[Record, ...]:
        """The finished trials whose networks were measured or trained."""
        return tuple(record for record in self.records if record.state != "open" and not record.cheap)

    @property
    def by_state(self) -> dict[str, int]:
        """How many trials there are in each state; `open` ones by whether they run or wait."""
        states = Counter(record.state for record in self.records if record.state != "open")
        running = sum(trial.state == TrialState.RUNNING for trial in self.trials)
        waiting = sum(trial.state == TrialState.WAITING for trial in self.trials)
        return {**dict(sorted(states.items())), **({"running": running} if running else {}),
                **({"waiting": waiting} if waiting else {})}  # fmt: skip

    def workers(self, now: float | None = None) -> list[WorkerView]:
        """Who has a trial, those that live first. now: seconds since 1970"""
        now = time.time() if now is None else now
        found: dict[tuple[str, int], list[tuple[int, bool]]] = {}
        for trial in self.trials:
            holder = trial.user_attrs.get(f"{PREFIX}owner")
            if trial.state == TrialState.RUNNING and isinstance(holder, Mapping):
                key = (str(holder.get("host", "?")), int(holder.get("pid") or 0))
                found.setdefault(key, []).append((trial.number, not has_expired(holder, now)))
        views = [
            WorkerView(host, pid, tuple(number for number, _ in held), any(alive for _, alive in held))
            for (host, pid), held in found.items()
        ]
        return sorted(views, key=lambda view: (not view.is_alive, view.host, view.pid))

    @property
    def an_hour(self) -> float | None:
        """Networks evaluated an hour, lately; None with fewer than two."""
        ends = sorted(end for record in self.evaluated if (end := self.trials[record.number].datetime_complete))
        recent = [end for end in ends if ends[-1] - end <= RECENT]
        if len(recent) < 2 or recent[-1] == recent[0]:
            return None
        return (len(recent) - 1) / ((recent[-1] - recent[0]).total_seconds() / 3600)

    @property
    def left_s(self) -> float | None:
        """Seconds until the wanted networks are evaluated, at the present rate; None where that is not known."""
        rate, wanted = self.an_hour, self.num_wanted
        return None if rate is None or wanted is None else max(0, wanted - len(self.evaluated)) / rate * 3600

    @property
    def last_finished(self) -> datetime | None:
        """When the last trial ended, in this machine's time."""
        return max((trial.datetime_complete for trial in self.trials if trial.datetime_complete), default=None)


def view_of(storage: BaseStorage, name: str) -> StudyView:
    """The study of a name, as it stands now. Raises: what the storage raises"""
    study = optuna.load_study(study_name=name, storage=storage)
    attributes = own_attributes(study.user_attrs)
    trials = study.get_trials(deepcopy=False)
    plan = attributes.get("plan")
    names = plan.get("objectives") if isinstance(plan, Mapping) else None
    objectives = tuple(objective_named(one) for one in names or ())
    return StudyView(name, attributes, objectives, tuple(read_record(trial) for trial in trials), trials)
