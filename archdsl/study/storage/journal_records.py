"""The lines of Optuna's journal: which are records, and where one is that cannot be replayed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from archdsl.errors import Place, Problem, StudyError
from archdsl.owned import open_own

_BLOCK_BYTES = 65536
_NEEDED: dict[int, tuple[str, ...]] = {
    0: ("study_name", "directions"),
    1: ("study_id",),
    2: ("study_id", "user_attr"),
    3: ("study_id", "system_attr"),
    4: ("study_id", "datetime_start"),
    5: ("trial_id", "param_name", "param_value_internal", "distribution"),
    6: ("trial_id", "state", "values"),
    7: ("trial_id", "step", "intermediate_value"),
    8: ("trial_id", "user_attr"),
    9: ("trial_id", "system_attr"),
}
"""What the replay of each operation of Optuna 5.0 reads: create a study, delete it, set its attributes; create a trial,
set a parameter, its state and values, an intermediate value, its attributes. Others are those of a newer Optuna.
"""


class DamagedJournal(Exception):
    """A line that is no record stands before one that is."""

    def __init__(self, path: Path):
        super().__init__(f"{path} has a line that is no record of Optuna")
        self.path = path


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for a line without its end, and for one that no replay could read."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("op_code"), int):
        return None
    needed = ("worker_id", *_NEEDED.get(record["op_code"], ()))
    return record if all(name in record for name in needed) else None


def unreadable_end(file: IO[bytes]) -> int:
    """Where the lines at the end of a journal begin that are no records; its size when the last line is one."""
    start = file.seek(0, os.SEEK_END)
    while start > 0:
        begin = _line_start(file, start)
        file.seek(begin)
        if record_of(file.read(start - begin)) is not None:
            break
        start = begin
    return start


def _line_start(file: IO[bytes], end: int) -> int:
    """Where the line starts whose last byte is before `end`."""
    position = end - 1
    while position > 0:
        step = min(_BLOCK_BYTES, position)
        position -= step
        file.seek(position)
        newline = file.read(step).rfind(b"\n")
        if newline >= 0:
            return position + newline + 1
    return 0


class Damage:
    """The first line of a journal that cannot be replayed.

    number: of the line, from 1; start: its first byte; text: the line; why: what the replay raised
    is_at_the_end: a line before it can be replayed, and none behind it
    is_alone: the other lines can be replayed without it, and each finds the study and the trial that it is about
    """

    def __init__(self, number: int, start: int, line: bytes, why: str):
        self.number, self.start, self.why = number, start, why
        self.text = line.decode(errors="replace").rstrip("\r\n")
        self.is_at_the_end, self.is_alone = number > 1, True

    def error(self, path: Path) -> StudyError:
        """The damage as an error that says what can be done about it."""
        message = f"the journal is damaged here ({self.why})"
        hint = "bring back an earlier copy of the file, or begin anew with --fresh or in another place"
        if self.is_alone:
            hint = f"no other record needs this line: keep a copy of the file and take line {self.number} out of it"
        return StudyError(Problem(Place(str(path), self.number, 1, self.text), "damaged-study", message, hint))


def first_damage(path: Path) -> Damage | None:
    """Replay a journal record by record, and say which is the first that cannot be read; None when all can."""
    found: Damage | None = None
    replay = _Replay()
    start = 0
    with open(open_own(path), "rb") as file:
        for number, line in enumerate(file, 1):
            why = None if line.isspace() else replay.of(line)
            if why is not None and found is None and line.endswith(b"\n"):
                found = Damage(number, start, line, why)
            elif why is None and found is not None:
                found.is_at_the_end = found.is_at_the_end and line.isspace()
            elif why is not None and found is not None:
                found.is_alone = False
            start += len(line)
    if found is not None:
        found.is_alone = found.is_alone and found.number > 1 and replay.is_whole
    return found


class _Replay:
    """Optuna's replay, one record after the other. is_whole: each was about a study and a trial that there were"""

    def __init__(self) -> None:
        self._next = _NextRecord()
        self._storage = JournalStorage(self._next)
        self.is_whole = True

    def of(self, line: bytes) -> str | None:
        """Replay a line. Returns: why it cannot be; None when it was"""
        record = record_of(line)
        if record is None:
            return "it is no record of Optuna"
        try:
            self._look_up(record)
            self._next.record = record
            self._storage.get_study_name_from_id(0)
        except Exception as error:  # Optuna's replay checks nothing: what is odd raises whatever it runs into
            if self._next.record is None:
                return None  # it was replayed, and there is no such study
            self._next.record = None
            return f"{type(error).__name__}: {str(error)[:200]}"
        return None

    def _look_up(self, record: dict[str, Any]) -> None:
        try:
            if "trial_id" in record:
                self._storage.get_trial(record["trial_id"])
            if "study_id" in record:
                self._storage.get_study_name_from_id(record["study_id"])
        except (KeyError, TypeError):
            self.is_whole = False


class _NextRecord(BaseJournalBackend):
    """A journal of one record that is to be replayed next; None when it was."""

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        del log_number_from  # the one behind those that were read
        if self.record is not None:
            yield self.record
            self.record = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise NotImplementedError
