"""Timings taken before: one SQLite file per user, so that no network is timed twice on the same target.

A cache is a convenience. Whatever happens to its file, a measurement goes on: a damaged row is a miss, a damaged file
is moved aside, a full disk means that the timing is not kept. Each of these is told by a `CacheWarning`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from archdsl.latency.artefact import Artefact
from archdsl.latency.timing import Timing
from archdsl.writing import cache_folder

T = TypeVar("T")

SCHEMA = 1
APPLICATION_ID = 0x61647473  # "adts"
BUSY_S = 30.0

_CREATE = """CREATE TABLE timings (
    key TEXT PRIMARY KEY, graph_hash TEXT NOT NULL, fingerprint TEXT NOT NULL, build TEXT NOT NULL,
    date TEXT NOT NULL, body TEXT NOT NULL, checksum TEXT NOT NULL
) WITHOUT ROWID"""


class CacheWarning(UserWarning):
    """Something about the timing cache that the user may want to know; the measurement itself is fine."""


class _Unusable(Exception):
    """The file must be left alone: it is not ours, or of a newer archdsl."""


class TimingCache:
    """Reads and writes timings by graph and target. Every call opens the file anew: threads and forks may share it."""

    def __init__(self, folder: Path | None = None):
        self.path = (folder or cache_folder()) / "timings.sqlite"

    def get(self, artefact: Artefact, fingerprint: str) -> Timing | None:
        """The timing of this network on this target, if there is an intact one."""
        key = _key(artefact, fingerprint)
        query = "SELECT body, checksum FROM timings WHERE key = ?"
        rows = self._use("read", lambda connection: connection.execute(query, (key,)).fetchall())
        if not rows:
            return None
        body, checksum = rows[0]
        if not isinstance(body, str) or _checksum(key, body) != checksum:
            return None
        try:
            timing = Timing.from_json(json.loads(body))
        except ValueError:
            return None
        return timing if timing.graph_hash == artefact.graph_hash else None

    def put(self, artefact: Artefact, fingerprint: str, timing: Timing) -> bool:
        """Keep a timing; one taken in peace is not replaced by a contended one. -> whether it was kept."""
        if timing.contended:
            before = self.get(artefact, fingerprint)
            if before is not None and not before.contended:
                return False
        key, body = _key(artefact, fingerprint), json.dumps(timing.as_json(), sort_keys=True)
        row = (key, artefact.graph_hash, fingerprint, artefact.build, timing.date, body, _checksum(key, body))

        def insert(connection: sqlite3.Connection) -> bool:
            with connection:
                connection.execute("INSERT OR REPLACE INTO timings VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            return True

        return self._use("written", insert) or False

    def _use(self, done: str, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """Run `action` on the open file; if that shows damage, once more on a new one. Failures are told."""
        for _ in range(2):
            try:
                with self._opened() as connection:
                    return action(connection)
            except _Unusable as error:
                _warn(f"the timing cache {self.path} is not used: {error}")
                return None
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                if not (_may_be_damage(error) and self._move_aside(str(error))):
                    _warn(f"the timing cache {self.path} could not be {done}: {error}")
                    return None
        return None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._make_file()
        with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_S)) as connection:
            connection.text_factory = _decoded
            connection.execute("PRAGMA synchronous = NORMAL")
            if self._version(connection) == 0:
                with self._locked():
                    self._create(connection)
            yield connection

    def _version(self, connection: sqlite3.Connection) -> int:
        """The schema's version, 0 for an empty file. Raises _Unusable for a file that is not ours to touch."""
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise _Unusable("it is another program's database")
            return 0
        if found > SCHEMA:
            raise _Unusable(f"a newer archdsl wrote it (schema {found}, this one knows {SCHEMA})")
        return found

    def _create(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) != 0:
            return  # another process was first
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.commit()

    def _make_file(self) -> None:
        """Make the folder and a file only the user can read; refuse a link or a device in its place."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _Unusable("it is not a regular file")
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time creates or moves the file."""
        import fcntl

        lock = self.path.with_suffix(".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _move_aside(self, why: str) -> bool:
        """Rename a damaged file and its companions. -> whether it is worth trying again.

        Another process may have been first; then the file at the path is a new one, and sound.
        """
        try:
            with self._locked():
                if not self.path.exists():
                    return True
                if self._sound():
                    return False
                aside = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
                for suffix in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        except OSError:
            return False
        _warn(f"the timing cache was damaged ({why}); it is now {aside} and a new one is used")
        return True

    def _sound(self) -> bool:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_S)) as connection:
                connection.text_factory = _decoded
                written = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'timings'").fetchall()
                checked: list[tuple[str]] = connection.execute("PRAGMA integrity_check(1)").fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return not _may_be_damage(error)
        return written in ([], [(_CREATE,)]) and checked == [("ok",)]


def _decoded(text: bytes) -> str:
    """Damaged text becomes wrong text, which no checksum fits, instead of an error."""
    return text.decode(errors="replace")


def _may_be_damage(error: Exception) -> bool:
    """Whether an error can come from damaged bytes: SQLITE_ERROR is what a column with a damaged name gives."""
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT)
    if isinstance(error, UnicodeDecodeError):
        return True  # sqlite3 could not even tell the name that it found
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in damage


def _key(artefact: Artefact, fingerprint: str) -> str:
    return hashlib.sha256(f"{artefact.graph_hash}\0{artefact.build}\0{fingerprint}".encode()).hexdigest()


def _checksum(key: str, body: str) -> str:
    return hashlib.sha256(f"{key}\0{body}".encode()).hexdigest()


def _warn(message: str) -> None:
    warnings.warn(message, CacheWarning, stacklevel=4)
