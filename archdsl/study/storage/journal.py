"""Optuna's journal file with a guard: no crash, short write or full disk can make it unreadable.

Optuna 5.0 appends records to a text file, one line each. A record that is cut short (kill, power loss, full disk) is
skipped while it is the last line; but the next record is glued to it, and the file can never be read again. Here a last
line without its end is moved to `<file>.torn` before anything is appended.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

_BLOCK_BYTES = 65536
_FOREIGN_LOCK_S = 3
"""How long a lock link of a process that is not archdsl may stand before it counts as forgotten."""


class JournalLock:
    """One writer at a time, by two locks.

    The kernel's lock on the journal itself ends with its process, however that ends. Optuna's own tools (dashboard,
    command line) know only the symbolic link `<file>.lock`, which outlives a killed process; so it is set too, and one
    that archdsl left behind is removed at once: whoever has the kernel's lock knows that its maker is gone.
    """

    def __init__(self, path: Path):
        self._path, self._descriptor = path, -1
        self._link = path.with_name(f"{path.name}.lock")
        self._mark = f"{path.parent}/./{path.name}"  # the same file as Optuna would name it, but recognisably ours
        self._optuna = JournalFileSymlinkLock(self._mark, grace_period=_FOREIGN_LOCK_S)

    def acquire(self) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if _flock(self._descriptor):
                with contextlib.suppress(OSError):
                    if os.readlink(self._link) == self._mark:
                        os.unlink(self._link)
            return self._optuna.acquire()
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        try:
            self._optuna.release()
        finally:
            os.close(self._descriptor)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


def _flock(descriptor: int) -> bool:
    """Whether the kernel's lock could be had; it waits for it. Some network file systems and Windows have none."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return False
    return True


class GuardedJournal(JournalFileBackend):
    """A journal file that always opens.

    An append is durable when it returns (but see `batch`), or raises OSError and leaves the file as it was. At most the
    record that was being written when a process died is lost; its bytes are kept in `<file>.torn`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        self._guard = JournalLock(self.path)
        self._batch = threading.local()
        super().__init__(str(self.path), lock_obj=self._guard)  # type: ignore[arg-type]  # the protocol, not the class
        with self._guard.held():
            self._cut_torn_line()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_batch"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._batch = threading.local()  # a batch belongs to a thread, and does not travel

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._guard.held():
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                if size and not _ends_a_line(descriptor):
                    self._cut_torn_line()
                    size = os.fstat(descriptor).st_size
                try:
                    _write_all(descriptor, data)
                    if getattr(self._batch, "open", False):
                        self._batch.written = True
                    else:
                        os.fsync(descriptor)
                except OSError:
                    with contextlib.suppress(OSError):  # if this fails too, the next writer cuts it
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def batch(self, *, flush: bool = True) -> Iterator[None]:
        """What this thread appends in here is flushed to the disk when it ends, and not record by record.

        flush: False leaves even that to the next flush, by whatever process. A killed process loses nothing by that,
        since the system has what it wrote; a power cut loses at most what was written since the last flush.
        Errors: OSError when the flush fails
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
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _cut_torn_line(self) -> None:
        """Move a last line without its end to `<file>.torn`. Only while the lock is held."""
        with open(self.path, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = _last_line(file, end)
            if start == end:
                return
            file.seek(start)
            torn = file.read()
            with contextlib.suppress(OSError), open(f"{self.path}.torn", "ab") as keep:
                keep.write(torn + b"\n")
            file.truncate(start)
            file.flush()
            os.fsync(file.fileno())


def _last_line(file: Any, end: int) -> int:
    """Where the line starts that lies behind the last newline; `end` when the file ends with a newline or is empty."""
    position = end
    while position > 0:
        step = min(_BLOCK_BYTES, position)
        position -= step
        file.seek(position)
        newline = file.read(step).rfind(b"\n")
        if newline >= 0:
            return int(position + newline + 1)
    return 0


def _ends_a_line(descriptor: int) -> bool:
    os.lseek(descriptor, -1, os.SEEK_END)
    return os.read(descriptor, 1) == b"\n"


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
