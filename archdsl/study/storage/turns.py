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
    """Turns among all clients of one PostgreSQL database, by an advisory lock on a connection of its own.

    make_engine: makes the SQLAlchemy engine; name: of the study, each has turns of its own
    The server ends the turn when the connection is lost, and looks after silent ones every ten seconds.
    """

    shared, one_clock = True, True

    def __init__(self, make_engine: Callable[[], Any], name: str, patience_s: float = PATIENCE_S):
        self._make_engine, self._key, self._patience_s = make_engine, crc32(name.encode()) - 2**31, patience_s
        self._name = name
        self._threads = threading.Lock()
        self._engine: Any = None
        self._connection: Any = None

    @contextlib.contextmanager
    def taken(self, *, durable: bool = False) -> Iterator[float]:
        with self._threads:
            now = self._begin()
            try:
                yield now
                if durable:
                    self._flush()
            finally:
                self._end()

    def together(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        with self._threads:
            self._drop()
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _begin(self) -> float:
        from sqlalchemy import exc, text

        turn = text(f"SELECT extract(epoch FROM clock_timestamp()) FROM pg_advisory_lock({_NAMESPACE}, {self._key})")
        for attempt in (1, 2):
            try:
                if self._connection is None:
                    self._connection = self._connected()
                return float(self._connection.execute(turn).scalar_one())
            except exc.DBAPIError as error:
                self._drop()
                if getattr(error.orig, "sqlstate", None) == "55P03":
                    raise _stuck(f"study {self._name}", "another worker", self._patience_s) from None
                if attempt == 2 or not error.connection_invalidated:
                    raise
        raise AssertionError("not reached")

    def _flush(self) -> None:
        """Make durable what was committed so far, by whatever connection: this commit writes and is not deferred."""
        from sqlalchemy import text

        self._connection.execute(text("SELECT pg_logical_emit_message(true, 'archdsl', '')"))

    def _end(self) -> None:
        from sqlalchemy import exc, text

        try:
            self._connection.execute(text(f"SELECT pg_advisory_unlock({_NAMESPACE}, {self._key})"))
        except exc.SQLAlchemyError:  # the server has ended the turn itself
            self._drop()

    def _connected(self) -> Any:
        from sqlalchemy import text

        if self._engine is None:
            self._engine = self._make_engine()
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        settings = {
            "lock_timeout": int(self._patience_s * 1000),
            "tcp_keepalives_idle": 10,
            "tcp_keepalives_interval": 5,
            "tcp_keepalives_count": 3,
        }
        for name, value in settings.items():
            connection.execute(text(f"SET {name} = {value}"))
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()


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
            return PostgresTurns(lambda: _alike(storage), name, patience_s)
        if kind == "sqlite" and url.database and url.database != ":memory:":
            path = Path(url.database).absolute()
            return FileTurns(path.with_name(f"{path.name}.turns"), patience_s)
        if kind != "sqlite":
            message = f"archdsl does not know how workers take turns on {kind}"
            hint = "keep the study in PostgreSQL, in SQLite, or in a journal file"
            raise StudyError(Problem(Place("study"), "storage", message, hint))
    return LocalTurns()


def _alike(storage: RDBStorage) -> Any:
    """Another engine for the same database, so that no turn waits for a connection that Optuna holds."""
    from sqlalchemy import create_engine

    return create_engine(storage.engine.url, pool_size=1, max_overflow=0)


def _stuck(place: str, holder: str, patience_s: float) -> StudyError:
    message = f"{holder} has not ended its turn on this study for {patience_s:.0f} s"
    hint = "if it was stopped, let it go on (kill -CONT) or end it; then the same command goes on"
    return StudyError(Problem(Place(place), "busy", message, hint))
