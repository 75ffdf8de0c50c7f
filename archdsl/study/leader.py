"""What the process does that leads workers: it sees that they live and tells what they finish; it does no trial."""

from __future__ import annotations

import time

import optuna

from archdsl.study.budget import stop_all
from archdsl.study.crew.interrupts import Interrupts
from archdsl.study.crew.workers import Workers
from archdsl.study.events import Listener, TrialEnded
from archdsl.study.storage.history import History
from archdsl.study.storage.leases import Leases
from archdsl.study.storage.turns import Turns

PAUSE_S = 0.2
"""Between two looks at the workers."""


class Leader:
    """Leads the workers of one study. leases: takes none, but puts back what dead workers held"""

    def __init__(
        self,
        study: optuna.Study,
        turns: Turns,
        history: History,
        leases: Leases,
        interrupts: Interrupts,
        listen: Listener,
    ):
        self._study, self._turns, self._history, self._leases = study, turns, history, leases
        self._interrupts, self._listen = interrupts, listen
        self._told = {record.number for record in history.finished()}

    def lead(self, workers: Workers) -> bool:
        """Let the workers work until they end, or this process is asked to. -> whether it was asked

        Errors: StudyError, what the workers say
        """
        asked = False
        try:
            workers.start()
            while workers.look(len(self._told)):
                self._tell_new()
                if self._interrupts.asked:
                    asked = True
                    stop_all(self._study)
                    break
                time.sleep(PAUSE_S)
        finally:
            workers.stop()
            with self._turns.taken() as now:
                self._history.refresh()
                self._leases.reap(now, self._history.running)
        self._tell_new()
        return asked

    def _tell_new(self) -> None:
        """Tell of the trials that have been finished since it was last told."""
        self._history.refresh()
        for record in self._history.finished():
            if record.number not in self._told:
                self._listen(TrialEnded(record))
                self._told.add(record.number)
