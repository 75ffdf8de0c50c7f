"""Locks of one study: while a worker holds the lock, no other changes who works on which trial.

Optuna's storages order single writes, but not a read and the write that depends on it: setting a running trial back to
waiting succeeds for everyone who tries, whoever runs it by then, and a trial can be finished by a worker that has lost
it long ago. Therefore every decision that depends on who holds a trial is made while the study's lock is held: a
kernel's lock on a file beside the study, or an advisory lock of the PostgreSQL server. Both are released when their
process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from optuna.exceptions import StorageInternalError

from archdsl.errors import Place, Problem, StudyError
from archdsl.locks import LockBusy, acquire
from archdsl.owned import open_own

TIMEOUT_S = 60.0
"""How long a worker waits for the lock; it is held for milliseconds, so by then something is wrong."""
_NAMESPACE = 0x61726368  # `arch`: the first half of our advisory locks' numbers


class StudyLock(ABC):
    """Mutual exclusion between all workers of one study.

    one_clock: whether the time that `held` yields is the database server's, the same for all workers; otherwise it is
        that of each worker's own machine
    """

    one_clock = False

    @abstractmethod
    def held(self, *, durable: bool = False) -> AbstractContextManager[float]:
        """Wait for the lock, hold it in the block, and yield the time in seconds since 1970.

        durable: what is written in the block outlives a power cut; otherwise that may take until the next durable block
        Raises: StudyError (`busy`) when the lock is not obtained within the lock's timeout
        """

    def close(self) -> None:  # noqa: B027  # most locks have no connection
        """Release the connection that the lock may have. It is opened again when the lock is needed."""


class LocalStudyLock(StudyLock):
    """Mutual exclusion between the threads of this process: for storages that no other process can see."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def held(self, *, durable: bool = False) -> Iterator[float]:
        del durable  # memory is not
        with self._lock:
            yield time.time()


class FileStudyLock(StudyLock):
    """Mutual exclusion by the kernel's lock on a file. Where the file system has no locks, only threads wait.

    Args:
        path: a file for nothing else; it holds the id of the process that had the lock last
        timeout_s: how long to wait for the lock
        batch: a context in which a storage's writes are flushed together or (`flush=False`) not at all; it is entered
            while the lock is held
    """

    def __init__(
        self,
        path: Path,
        timeout_s: float = TIMEOUT_S,
        batch: Callable[..., AbstractContextManager[None]] = lambda *, flush: contextlib.nullcontext(),
    ):
        self.path, self._timeout_s, self._batch = path, timeout_s, batch
        self._threads = threading.Lock()

    @contextmanager
    def held(self, *, durable: bool = False) -> Iterator[float]:
        with self._threads:
            descriptor = open_own(self.path, os.O_RDWR | os.O_CREAT)
            try:
                self._acquire(descriptor)
                with self._batch(flush=durable):
                    yield time.time()
            finally:
                os.close(descriptor)

    def _acquire(self, descriptor: int) -> None:
        try:
            if acquire(descriptor, self._timeout_s):
                os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)
        except LockBusy:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise _busy(str(self.path), f"process {holder}", self._timeout_s) from None


class PostgresStudyLock(StudyLock):
    """Mutual exclusion between all workers of one study in PostgreSQL.

    `held()` opens a transaction and takes `pg_advisory_xact_lock`. Everything the storage reads or writes in the block
    joins that transaction, so it commits as a whole or not at all.

    Args:
        url: of the database, as SQLAlchemy takes it. The lock has an engine of its own, so that it never waits for a
            connection that Optuna holds
        name: of the study; each has its own lock
        timeout_s: how long to wait for the lock. The server ends the transaction of a holder that sends nothing for
            `timeout_s / 2`, or whose connection is lost (noticed within 25 s); the holder's next statement then raises
            StorageInternalError.
        join: a context in which the storage uses the connection it is given
    """

    one_clock = True

    def __init__(
        self,
        url: Any,
        name: str,
        timeout_s: float = TIMEOUT_S,
        join: Callable[[Any], AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        self._url, self._key, self._timeout_s = url, crc32(name.encode()) - 2**31, timeout_s
        self._name, self._join = name, join
        self._threads = threading.Lock()
        self._engine: Any = None
        self._connection: Any = None

    @contextmanager
    def held(self, *, durable: bool = False) -> Iterator[float]:
        """Yield the server's time. durable: wait for the disk at commit (`synchronous_commit`)

        Raises: StudyError (`busy`); StorageInternalError when the server has ended the transaction
        """
        with self._threads:
            now, transaction = self._begin(durable)
            try:
                with transaction, self._join(self._connection):
                    yield now
                    if not transaction.is_active:
                        raise StorageInternalError("what was written while the study's lock was held was rolled back")
            finally:
                if self._connection.invalidated or self._connection.in_transaction():
                    self._drop()

    def close(self) -> None:
        with self._threads:
            self._drop()
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _begin(self, durable: bool) -> tuple[float, Any]:
        """Wait for the lock. Returns the server's time and the transaction."""
        from sqlalchemy import exc, text

        # a commit that waits for the disk waits for all that was committed before, by whatever connection
        wait = "" if durable else ", set_config('synchronous_commit', 'off', true)"
        now = f"extract(epoch FROM clock_timestamp()){wait}"
        lock = text(f"SELECT {now} FROM pg_advisory_xact_lock({_NAMESPACE}, {self._key})")
        for attempt in (1, 2):
            try:
                if self._connection is None:
                    self._connection = self._connected()
                transaction = self._connection.begin()
                return float(self._connection.execute(lock).one()[0]), transaction
            except exc.DBAPIError as error:
                self._drop()
                if getattr(error.orig, "sqlstate", None) == "55P03":
                    raise _busy(f"study {self._name}", "another worker", self._timeout_s) from None
                if attempt == 2 or not error.connection_invalidated:
                    raise
        raise AssertionError("not reached")

    def _connected(self) -> Any:
        from sqlalchemy import create_engine

        if self._engine is None:
            timeout_ms = int(self._timeout_s * 1000)
            settings = {
                "lock_timeout": timeout_ms,
                "idle_in_transaction_session_timeout": timeout_ms // 2,
                "tcp_keepalives_idle": 10,
                "tcp_keepalives_interval": 5,
                "tcp_keepalives_count": 3,
            }
            options = " ".join(f"-c {name}={value}" for name, value in settings.items())
            self._engine = create_engine(self._url, pool_size=1, max_overflow=0, connect_args={"options": options})
        return self._engine.connect()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()


def _busy(place: str, holder: str, timeout_s: float) -> StudyError:
    message = f"{holder} has not released the lock of this study for {timeout_s:.0f} s"
    hint = "if it was stopped, continue it (kill -CONT) or end it, then run the same command again"
    return StudyError(Problem(Place(place), "busy", message, hint))
