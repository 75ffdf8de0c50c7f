"""Optuna's journal file with a guard: no crash, short write or full disk can make it unreadable.

Optuna 5.0 appends records to a text file, one line each. A record that is cut short (kill, power loss, full disk) is
skipped while it is the last line; but the next record is glued to it, and the file can never be read again. The same
happens when another program appends a line that is no record. Here what is at the end of the file and is no whole
record is moved to `<file>.torn` before anything is appended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from archdsl.locks import acquire
from archdsl.owned import NotOurs, open_own
from archdsl.study.storage.journal_records import DamagedJournal, first_damage, record_of, unreadable_end

log = logging.getLogger(__name__)

_FOREIGN_LOCK_S = 3
"""How long a lock link of a process that is not archdsl may stand before it counts as forgotten."""
_LONGEST_PAUSE_S = 1.0


class JournalLock:
    """One writer at a time, by two locks.

    The kernel's lock on the journal itself is released when its process ends, however it ends. Optuna's own tools
    (dashboard, command line) know only the symbolic link `<file>.lock`, which outlives a killed process. So the link is
    made too, and one that archdsl left behind is removed at once: its process is gone when the kernel's lock is free.
    """

    def __init__(self, path: Path):
        self._path, self._descriptor = path, -1
        self._link = path.with_name(f"{path.name}.lock")
        self._mark = f"{path.parent}/./{path.name}"  # the same file as Optuna would name it, but recognisably ours

    def acquire(self) -> bool:
        """Wait for both locks. Raises: OSError"""
        self._descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT)
        try:
            if acquire(self._descriptor):
                with contextlib.suppress(OSError):
                    if os.readlink(self._link) == self._mark:
                        os.unlink(self._link)
            return self._make_link()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _make_link(self) -> bool:
        """Make the link; one of another program is removed when neither it nor the journal has changed for long."""
        seen, since, pause = None, time.monotonic(), 0.001
        while True:
            try:
                os.symlink(self._mark, self._link)
                return True
            except FileExistsError:
                pass
            with contextlib.suppress(FileNotFoundError):
                now = self._holder()
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > _FOREIGN_LOCK_S:
                    os.unlink(self._link)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _holder(self) -> tuple[int, ...]:
        """What changes while another program has the link. Raises: NotOurs for what is no lock at all"""
        link, journal = os.lstat(self._link), os.fstat(self._descriptor)
        if not (stat.S_ISLNK(link.st_mode) or (stat.S_ISREG(link.st_mode) and link.st_size == 0)):
            raise NotOurs(f"{self._link} is where the journal's lock belongs, and is not one")
        return link.st_ino, link.st_mtime_ns, journal.st_mtime_ns

    def release(self) -> None:
        """Release both locks."""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._link)
        finally:
            os.close(self._descriptor)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold both locks in the block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


class GuardedJournal(JournalFileBackend):
    """A journal file that stays readable, whatever ends a process in the middle of a write or is appended by others.

    An append is durable when it returns (but see `batch`), or raises OSError and leaves the file as it was. At most the
    record that was being written when a process died is lost; its bytes are moved to `<file>.torn`.
    Raises: OSError, e.g. NotOurs for a link or a pipe; DamagedJournal when the file holds lines, and none is a record
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        self._guard = JournalLock(self.path)
        self._batch = threading.local()
        self._written = -1
        with self._guard.held():  # makes the file, too: Optuna would make it through a link
            self._cut_end()
        super().__init__(str(self.path), lock_obj=self._guard)  # type: ignore[arg-type]  # the protocol, not the class

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_batch"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._batch = threading.local()  # a batch belongs to a thread, and does not travel

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from a number on. Lines at the end that are none are left for the next writer to set aside.

        Raises: DamagedJournal when a record stands behind a line that is none
        """
        ends = self._log_number_offset
        number = log_number_from if log_number_from in ends else 0
        position, is_damaged = ends[number], False
        with open(open_own(self.path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(position)
            for line in file:
                position += len(line)
                if position > size:
                    return  # another process is writing this line
                record = record_of(line)
                if record is None:
                    is_damaged = is_damaged or not line.isspace()
                    continue
                if is_damaged:
                    raise DamagedJournal(self.path)
                number += 1
                ends[number] = position
                if number > log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records as one write. Raises: OSError, and then the file is as it was; DamagedJournal"""
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._guard.held():
            descriptor = open_own(self.path, os.O_RDWR | os.O_APPEND)
            try:
                size = os.fstat(descriptor).st_size
                if size != self._written:  # else the last line is this process's own
                    size = self._cut_end()
                try:
                    _write_all(descriptor, data)
                    if getattr(self._batch, "open", False):
                        self._batch.written = True
                    else:
                        os.fsync(descriptor)
                    self._written = size + len(data)
                except OSError:
                    with contextlib.suppress(OSError):  # if this fails too, the next writer cuts it
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def batch(self, *, flush: bool = True) -> Iterator[None]:
        """What this thread appends in the block is flushed to the disk when the block ends, not record by record.

        Args: flush: False leaves that, too, to the next flush, by whatever process. A killed process loses nothing by
            it, since the system has what it wrote; a power cut loses at most what was written since the last flush.
        Raises: OSError when the flush fails
        """
        if getattr(self._batch, "open", False):
            yield
            return
        self._batch.open, self._batch.written = True, False
        try:
            yield
        finally:
            self._batch.open = False
            if self._batch.written and flush:
                with open(open_own(self.path, os.O_RDWR), "r+b") as file:
                    os.fsync(file.fileno())

    def set_aside_what_cannot_be_replayed(self) -> None:
        """Move lines at the end that have the form of records, but cannot be replayed, to `<file>.torn`.

        Raises: OSError, and then the file is as it was
        """
        with self._guard.held():
            damage = first_damage(self.path)
            if damage is not None and damage.is_at_the_end:
                self._cut(damage.start)

    def _cut_end(self) -> int:
        """Move the lines at the end that are no records to `<file>.torn`. Only while the lock is held.

        Returns: the size of the file, in bytes
        Raises: OSError; DamagedJournal when no line at all is a record
        """
        with open(open_own(self.path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = unreadable_end(file)
            file.seek(start)
            lines = file.read().splitlines(keepends=True)
        if start == 0 and any(line.endswith(b"\n") for line in lines):
            raise DamagedJournal(self.path)
        if start < size:
            self._cut(start)
        return start

    def _cut(self, start: int) -> None:
        with open(open_own(self.path, os.O_RDWR), "r+b") as file:
            file.seek(start)
            torn = file.read()
            try:
                how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                with open(open_own(f"{self.path}.torn", how), "ab") as keep:
                    keep.write(torn if torn.endswith(b"\n") else torn + b"\n")
            except NotOurs:
                raise
            except OSError:
                if b"\n" in torn:
                    raise
            file.truncate(start)
            file.flush()
            os.fsync(file.fileno())
        if torn.endswith(b"\n"):
            log.warning("the end of %s could not be read, and is now in %s.torn", self.path, self.path.name)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
