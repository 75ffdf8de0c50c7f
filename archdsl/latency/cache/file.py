"""The SQLite file that timings are kept in: opened safely, brought to the newest schema, moved aside when damaged.

It knows the tables, not what a timing is. Every call opens the file anew: threads and forks may share a `CacheFile`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from archdsl.errors import ArchError
from archdsl.files import why_no_cache
from archdsl.locks import locked
from archdsl.owned import check_own, open_own

T = TypeVar("T")

APPLICATION_ID = 0x61647473  # "adts"
BUSY_S = 30.0

_TIMINGS_1 = """CREATE TABLE timings (
    key TEXT PRIMARY KEY, graph_hash TEXT NOT NULL, fingerprint TEXT NOT NULL, build TEXT NOT NULL,
    date TEXT NOT NULL, body TEXT NOT NULL, checksum TEXT NOT NULL
) WITHOUT ROWID"""
_TIMINGS = """CREATE TABLE timings (
    key TEXT PRIMARY KEY, network TEXT NOT NULL, graph_hash TEXT NOT NULL, fingerprint TEXT NOT NULL,
    build TEXT NOT NULL, date TEXT NOT NULL, body TEXT NOT NULL, checksum TEXT NOT NULL
) WITHOUT ROWID"""
_REPEATS = """CREATE TABLE repeats (
    number INTEGER PRIMARY KEY, place TEXT NOT NULL, key TEXT NOT NULL, median_ms REAL NOT NULL, date TEXT NOT NULL,
    checksum TEXT NOT NULL
)"""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    0: (_TIMINGS_1,),  # an empty file
    1: (  # networks have names; a row too damaged for the new table is left behind
        "ALTER TABLE timings RENAME TO timings_1",
        _TIMINGS,
        "INSERT OR IGNORE INTO timings SELECT key, '', graph_hash, fingerprint, build, date, body, checksum"
        " FROM timings_1",
        "DROP TABLE timings_1",
    ),
    2: (_REPEATS,),  # how far measurements differ is learnt
}
"""What brings a file from version n to n + 1."""

SCHEMA = len(MIGRATIONS)

COLUMNS = "key, network, graph_hash, fingerprint, build, date, body, checksum"
"""Of the table `timings`: the fields of an `Entry`, in their order."""

REPEAT_COLUMNS = "place, key, median_ms, date, checksum"
"""Of the table `repeats`: the fields of a `Repeat` and its checksum, in their order."""


class CacheWarning(UserWarning):
    """Something about the timing cache that the user may want to know; the measurement itself is fine."""


class CacheError(ArchError):
    """The timing cache cannot be read or written."""


class NoCache(CacheError):
    """There is no folder that a cache can be kept in."""


class _Unusable(Exception):
    """The file must be left alone: it is not ours, or of a newer archdsl."""


_FAILURES = (sqlite3.Error, OSError, UnicodeDecodeError)


class CacheFile:
    """`timings.sqlite` in a folder, with its lock beside it."""

    def __init__(self, path: Path):
        self.path = path

    def read(self, action: Callable[[sqlite3.Connection], T], empty: T) -> T:
        """What `action` finds in the file; `empty` when there is none. Works where nothing may be written.

        Raises: CacheError. A damaged file is moved aside and a new one begun, with a CacheWarning
        """
        return self._use("read", lambda: self._read(action, empty))

    def write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `action` in one transaction, which no other process comes between; the file is made if there is none.

        Raises: CacheError, and then nothing of it has happened. A damaged file is treated as in `read`.
        """
        return self._use("written", lambda: self._write(action))

    def compact(self) -> None:
        """Give the room of removed rows back to the disk. A failure is a CacheWarning: no row is lost."""
        try:
            with self._opened(make=False) as connection:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except (sqlite3.Error, OSError, _Unusable) as error:
            warn(f"the timing cache {self.path} could not be made smaller: {error}")

    def size_bytes(self) -> int:
        """Bytes of the file and of what is not merged into it yet; 0 when there is none."""
        total = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                total += os.stat(f"{self.path}{suffix}", follow_symlinks=False).st_size
        return total

    def _use(self, done: str, action: Callable[[], T]) -> T:
        """Do `action`; if it shows damage, once more on a new file."""
        try:
            try:
                return action()
            except _FAILURES as error:
                if not (_may_be_damage(error) and self._move_aside(str(error))):
                    raise
                return action()
        except (_Unusable, *_FAILURES) as error:
            how = "is not used" if isinstance(error, _Unusable) else f"could not be {done}"
            message = f"the timing cache {self.path} {how}: {error}"
            hint = "the environment variable ARCHDSL_CACHE_DIR names another folder"
            if (why := why_no_cache(self.path.parent)) is not None:
                raise NoCache.at(
                    "ARCHDSL_CACHE_DIR", os.environ.get("ARCHDSL_CACHE_DIR", ""), "cache", why, hint
                ) from error
            raise CacheError.at(str(self.path), str(self.path), "cache", message, hint) from error

    def _read(self, action: Callable[[sqlite3.Connection], T], empty: T) -> T:
        try:
            if _writable(self.path):
                with self._opened(make=False) as connection:
                    return action(connection)
            check_own(self.path)
        except FileNotFoundError:
            return empty
        with contextlib.closing(sqlite3.connect(self._read_only(), uri=True, timeout=BUSY_S)) as connection:
            connection.text_factory = _decoded
            found = _version(connection)
            if 0 < found < SCHEMA:
                raise _Unusable(
                    f"it is of schema {found} and cannot be brought to {SCHEMA} where it may not be written"
                )
            return action(connection) if found else empty

    def _read_only(self) -> str:
        """How SQLite opens a file beside which it can write nothing. With nothing left to merge it needs no lock."""
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        unmerged = Path(f"{self.path}-wal")
        return uri if unmerged.exists() and unmerged.stat().st_size else f"{uri}&immutable=1"

    def _write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        with self._opened(make=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                if _version(connection) != SCHEMA:
                    raise sqlite3.OperationalError("another process has changed it meanwhile")
                return action(connection)

    @contextlib.contextmanager
    def _opened(self, *, make: bool) -> Iterator[sqlite3.Connection]:
        """The file at the newest schema. make: also the folder and the file, which only the user can read."""
        if make:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(open_own(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            check_own(self.path)
        except FileNotFoundError:
            if not make:
                raise  # else another process has just moved it aside
        with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_S)) as connection:
            connection.text_factory = _decoded
            connection.execute("PRAGMA synchronous = NORMAL")
            if _version(connection) < SCHEMA:
                with locked(self.path.with_suffix(".lock")):
                    _migrate(connection)
            yield connection

    def _move_aside(self, why: str) -> bool:
        """Rename a damaged file and its companions, and return whether it is worth trying again.

        Another process may have been first; then the file at the path is a new one, and sound.
        """
        try:
            with locked(self.path.with_suffix(".lock")):
                if not self.path.exists():
                    return True
                if self._sound():
                    return False
                aside = name_aside(self.path)
                for suffix in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        except OSError:
            return False
        warn(f"the timing cache was damaged ({why}); it is now {aside} and a new one is used")
        return True

    def _sound(self) -> bool:
        """Whether the pages are intact and, at the newest schema, the tables have their columns."""
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_S)) as connection:
                connection.text_factory = _decoded
                found: int = connection.execute("PRAGMA user_version").fetchone()[0]
                if found == SCHEMA:
                    connection.execute(f"SELECT {COLUMNS} FROM timings LIMIT 0")
                    connection.execute(f"SELECT {REPEAT_COLUMNS} FROM repeats LIMIT 0")
                checked: list[tuple[str]] = connection.execute("PRAGMA integrity_check(1)").fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return not _may_be_damage(error)
        return checked == [("ok",)]


def name_aside(path: Path) -> str:
    """Where a damaged file is moved to."""
    return f"{path}.corrupt-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"


def warn(message: str) -> None:
    """Warn the caller of the cache of something that does not stop it."""
    warnings.warn(message, CacheWarning, stacklevel=4)


def warn_once(message: str) -> None:
    """Warn that there is no cache: once in this process, though every timing meets it."""
    if message not in _said:
        _said.add(message)
        warnings.warn(f"{message}; ARCHDSL_CACHE_DIR names another folder", CacheWarning, stacklevel=4)


_said: set[str] = set()


def _version(connection: sqlite3.Connection) -> int:
    """The schema's version, 0 for an empty file. Raises _Unusable for a file that is not ours to touch."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise _Unusable("it is another program's database")
        return 0
    if not 0 <= found <= SCHEMA:
        raise _Unusable(f"a newer archdsl wrote it (schema {found}, this one knows {SCHEMA})")
    return found


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest schema in one transaction: a crash leaves it as it was."""
    if _version(connection) == 0:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        for version in range(_version(connection), SCHEMA):  # none, if another process was first
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _writable(path: Path) -> bool:
    """Whether this process may write the file and beside it. Raises FileNotFoundError when there is no file."""
    os.stat(path, follow_symlinks=False)
    effective = os.access in os.supports_effective_ids
    return all(os.access(place, os.W_OK, effective_ids=effective) for place in (path, path.parent))


def _decoded(text: bytes) -> str:
    """Damaged text becomes wrong text, which no checksum fits, instead of an error."""
    return text.decode(errors="replace")


def _may_be_damage(error: Exception) -> bool:
    """Whether an error can come from damaged bytes: SQLITE_ERROR is what a column with a damaged name gives."""
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT)
    if isinstance(error, UnicodeDecodeError):
        return True  # sqlite3 could not even decode the name that it found
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in damage
