"""Turns: while a worker has its turn, no other changes who works on what.

Optuna's storages order single writes, but not a look and the write that follows from it: setting a running trial back
to waiting succeeds for everyone who tries, whoever runs it by then, and a trial may be told by a worker that has long
lost it. So whatever depends on who holds a trial is done in a turn: a kernel's lock on a file beside the study, or an
advisory lock of the PostgreSQL server. Both end with their process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from archdsl.errors import Place, Problem, StudyError
from archdsl.study.storage.journal import GuardedJournal

PATIENCE_S = 60.0
"""How long a worker waits for its turn; turns take milliseconds, so by then something is wrong."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05
_NAMESPACE = 0x61726368  # `arch`: the first half of our advisory locks' numbers


class Turns(Protocol):
    """`taken` is a context: it waits for the turn, gives the time in seconds since 1970, and ends the turn.

    shared: whether other processes wait for it too
    one_clock: the time is that of the database's server, the same for all; else that of each worker's own machine
    durable: what is written in the turn outlives a power cut; else it may take until the next durable turn
    together: a context for several writes outside a turn, which need not be durable
    Errors: StudyError when the turn does not come in `PATIENCE_S`
    """

    shared: bool
    one_clock: bool

    def taken(self, *, durable: bool = False) -> contextlib.AbstractContextManager[float]: ...
    def together(self) -> contextlib.AbstractContextManager[None]: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def _no_batch(*, flush: bool) -> Iterator[None]:
    del flush
    yield


class LocalTurns:
    """Turns among the threads of this process: for storages that no other process can see."""

    shared, one_clock = False, False

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self, *, durable: bool = False) -> Iterator[float]:
        del durable  # memory is not
        with self._lock:
            yield time.time()

    def together(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        pass


class FileTurns:
    """Turns among all processes that can lock the same file. Where the file system has no locks, only threads wait.

    batch: a context in which a storage's writes are flushed together or (`flush=False`) not at all; each turn is one
    """

    def __init__(self, path: Path, patience_s: float = PATIENCE_S, batch: Callable[..., Any] = _no_batch):
        self.path, self._patience_s, self._batch = path, patience_s, batch
        self._threads = threading.Lock()
        self.shared, self.one_clock = self._has_locks(), False

    @contextlib.contextmanager
    def taken(self, *, durable: bool = False) -> Iterator[float]:
        with self._threads:
            descriptor = self._opened()
            try:
                if self.shared:
                    self._wait(descriptor)
                    os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)
                with self._batch(flush=durable):
                    yield time.time()
            finally:
                os.close(descriptor)

    def together(self) -> contextlib.AbstractContextManager[None]:
        together: contextlib.AbstractContextManager[None] = self._batch(flush=False)
        return together

    def close(self) -> None:
        pass

    def _opened(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _has_locks(self) -> bool:
        descriptor = self._opened()
        try:
            return locked(descriptor) is not None
        finally:
            os.close(descriptor)

    def _wait(self, descriptor: int) -> None:
        end, pause = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while not locked(descriptor):
            if time.monotonic() > end:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise _stuck(str(self.path), f"process {holder}", self._patience_s)
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE_S)


def locked(descriptor: int) -> bool | None:
    """Try for the kernel's lock: had it or not; None where there is none (Windows, some network file systems)."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


class PostgresTurns:
    """Turns among all clients of one PostgreSQL database. A turn is a transaction that begins with an advisory lock.

    make_engine: makes the SQLAlchemy engine; name: of the study, each has turns of its own; storage: what its threads
        read and write in their turns belongs to the transaction: it is there as a whole or, after an error, not at all

    The server ends the turn when the connection is lost, which it looks after every ten seconds, and that of a worker
    that falls silent in it after half the patience of those that wait; the worker is told with its next statement.
    """

    shared, one_clock = True, True

    def __init__(
        self,
        make_engine: Callable[[str], Any],
        name: str,
        patience_s: float = PATIENCE_S,
        storage: RDBStorage | None = None,
    ):
        self._make_engine, self._key, self._patience_s = make_engine, crc32(name.encode()) - 2**31, patience_s
        self._name, self._storage = name, storage
        self._threads = threading.Lock()
        self._engine: Any = None
        self._connection: Any = None

    @contextlib.contextmanager
    def taken(self, *, durable: bool = False) -> Iterator[float]:
        with self._threads:
            now, transaction = self._begin(durable)
            try:
                with transaction, joined(self._storage, self._connection):
                    yield now
                    if not transaction.is_active:
                        raise StorageInternalError("what was written in this turn was rolled back")
            finally:
                if self._connection.invalidated or self._connection.in_transaction():
                    self._drop()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        if self._storage is None:
            yield
            return
        with self._storage.engine.connect() as connection:
            transaction = connection.begin()
            with joined(self._storage, connection):
                yield
            if transaction.is_active:  # else a write was refused, and those behind it had transactions of their own
                transaction.commit()

    def close(self) -> None:
        with self._threads:
            self._drop()
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _begin(self, durable: bool) -> tuple[float, Any]:
        """Wait for the turn. -> its time, its transaction"""
        from sqlalchemy import exc, text

        # a commit that waits for the disk waits for all that was committed before, by whatever connection
        wait = "" if durable else ", set_config('synchronous_commit', 'off', true)"
        now = f"extract(epoch FROM clock_timestamp()){wait}"
        turn = text(f"SELECT {now} FROM pg_advisory_xact_lock({_NAMESPACE}, {self._key})")
        for attempt in (1, 2):
            try:
                if self._connection is None:
                    self._connection = self._connected()
                transaction = self._connection.begin()
                return float(self._connection.execute(turn).one()[0]), transaction
            except exc.DBAPIError as error:
                self._drop()
                if getattr(error.orig, "sqlstate", None) == "55P03":
                    raise _stuck(f"study {self._name}", "another worker", self._patience_s) from None
                if attempt == 2 or not error.connection_invalidated:
                    raise
        raise AssertionError("not reached")

    def _connected(self) -> Any:
        if self._engine is None:
            patience_ms = int(self._patience_s * 1000)
            settings = {
                "lock_timeout": patience_ms,
                "idle_in_transaction_session_timeout": patience_ms // 2,
                "tcp_keepalives_idle": 10,
                "tcp_keepalives_interval": 5,
                "tcp_keepalives_count": 3,
            }
            self._engine = self._make_engine(" ".join(f"-c {name}={value}" for name, value in settings.items()))
        return self._engine.connect()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()


@contextlib.contextmanager
def joined(storage: RDBStorage | None, connection: Any) -> Iterator[None]:
    """What this thread reads and writes in a storage is part of a connection's transaction.

    Optuna has a session for each thread, and commits it with every call. Here the thread is given another one, whose
    commits are left to whoever began the transaction; when it rolls back, the transaction is over.
    """
    if storage is None:
        yield
        return
    from sqlalchemy.orm import Session

    sessions = storage.scoped_session
    sessions.remove()
    sessions.registry.set(Session(bind=connection, join_transaction_mode="rollback_only"))
    try:
        yield
    finally:
        sessions.remove()


def turns_of(storage: BaseStorage, name: str, patience_s: float = PATIENCE_S) -> Turns:
    """The turns of a study in a storage.

    Errors: StudyError for a database whose locks archdsl does not know
    """
    if isinstance(storage, JournalStorage) and isinstance(storage._backend, GuardedJournal):
        journal = storage._backend
        return FileTurns(journal.path.with_name(f"{journal.path.name}.turns"), patience_s, journal.batch)
    if isinstance(storage, RDBStorage):
        url = storage.engine.url
        kind = url.get_backend_name()
        if kind == "postgresql":
            return PostgresTurns(lambda settings: _alike(storage, settings), name, patience_s, storage)
        if kind == "sqlite" and url.database and url.database != ":memory:":
            path = Path(url.database).absolute()
            return FileTurns(path.with_name(f"{path.name}.turns"), patience_s)
        if kind != "sqlite":
            message = f"archdsl does not know how workers take turns on {kind}"
            hint = "keep the study in PostgreSQL, in SQLite, or in a journal file"
            raise StudyError(Problem(Place("study"), "storage", message, hint))
    return LocalTurns()


def _alike(storage: RDBStorage, settings: str) -> Any:
    """Another engine for the same database, so that no turn waits for a connection that Optuna holds."""
    from sqlalchemy import create_engine

    return create_engine(storage.engine.url, pool_size=1, max_overflow=0, connect_args={"options": settings})


def _stuck(place: str, holder: str, patience_s: float) -> StudyError:
    message = f"{holder} has not ended its turn on this study for {patience_s:.0f} s"
    hint = "if it was stopped, let it go on (kill -CONT) or end it; then the same command goes on"
    return StudyError(Problem(Place(place), "busy", message, hint))
