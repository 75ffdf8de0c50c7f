"""`status`: how far a search is, who works at it, when it will be done, and its front so far."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from archdsl.report.front_rows import FrontRow
from archdsl.runs.reading import open_search
from archdsl.study.objectives import Objective
from archdsl.study.view import WorkerView


@dataclass(frozen=True)
class SearchStatus:
    """A search as it stands.

    trials: how many in each state; num_evaluated, num_wanted: networks, the latter None where it was not published
    an_hour: networks evaluated an hour, lately; left_s: seconds until the wanted ones are, at that rate
    last_finished: when the last trial ended, in this machine's time; stop_requested: whether workers were asked to end
    """

    study: str
    storage: str
    objectives: tuple[Objective, ...]
    trials: Mapping[str, int]
    num_evaluated: int
    num_wanted: int | None
    workers: Sequence[WorkerView]
    an_hour: float | None
    left_s: float | None
    last_finished: datetime | None
    stop_requested: bool
    rows: tuple[FrontRow, ...]

    def as_json(self) -> dict[str, Any]:
        """What `archdsl status --json` prints."""
        return {
            "study": self.study,
            "storage": self.storage,
            "objectives": [objective.name for objective in self.objectives],
            "trials": dict(self.trials),
            "networks_evaluated": self.num_evaluated,
            "networks_wanted": self.num_wanted,
            "workers": [asdict(worker) for worker in self.workers],
            "networks_an_hour": self.an_hour,
            "left_s": self.left_s,
            "last_finished": self.last_finished.isoformat() if self.last_finished else None,
            "stop_requested": self.stop_requested,
            "front": [row.as_json() for row in self.rows],
        }


def status(run: str | os.PathLike[str], study: str | None = None) -> SearchStatus:
    """How a search stands; nothing of it is changed.

    Args:
        run: its folder, its journal file, or the URL of the database
        study: its name, where several are kept there
    Returns: trials, workers, rate and the front so far
    Raises: StudyError when there is none
    Example:
        >>> import archdsl, tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = archdsl.search("quickstart", trials=3, set={"objectives": {"macs": {}, "params": {}}}, out=out)
        ...     seen = archdsl.status(out)
        >>> seen.num_evaluated, seen.trials["complete"], len(seen.rows) == len(found.rows)
        (3, 3, True)
    """
    opened = open_search(run, study)
    view = opened.view
    budget = view.attributes.get("budget")
    return SearchStatus(
        study=view.name,
        storage=opened.storage,
        objectives=view.objectives,
        trials=view.by_state,
        num_evaluated=len(view.evaluated),
        num_wanted=view.num_wanted,
        workers=view.workers(),
        an_hour=view.an_hour,
        left_s=view.left_s,
        last_finished=view.last_finished,
        stop_requested=isinstance(budget, Mapping) and budget.get("stop") is not None,
        rows=opened.rows,
    )
