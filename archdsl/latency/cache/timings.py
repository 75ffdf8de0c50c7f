"""Timings taken before: one SQLite file per user, so that no network is timed twice on the same target.

A cache is a convenience. Whatever happens to its file, a measurement goes on: a damaged row is a miss, a damaged file
is moved aside, a full disk means that the timing is not kept. Each of these gives a `CacheWarning`. Only what is about
the cache itself (`entries`, `prune`, `export`, `import_files`) raises an error when its file cannot be used.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from archdsl.errors import ArchError
from archdsl.files import cache_folder
from archdsl.json_fields import JsonFields
from archdsl.latency.cache.entry import Entry, Filter, key_of, repeat_from_row, repeat_row
from archdsl.latency.cache.file import (
    COLUMNS,
    REPEAT_COLUMNS,
    SCHEMA,
    CacheError,
    CacheFile,
    CacheWarning,
    NoCache,
    warn,
    warn_once,
)
from archdsl.latency.cache.interchange import read_files, write_entries
from archdsl.latency.repeatability import DAYS, Repeat
from archdsl.latency.timing import Timing, date_text
from archdsl.runtimes.artefact import Artefact

T = TypeVar("T")

_SELECT = f"SELECT {COLUMNS} FROM timings"
_INSERT = f"INSERT OR REPLACE INTO timings ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
MOST_REPEATS = 500
"""Repeats that are kept of one place."""
_ORDER = " ORDER BY network, graph_hash, build, fingerprint"


@dataclass(frozen=True)
class Merged(JsonFields):
    """How many timings of an import were new, took the place of another, or were no better than what was there."""

    added: int = 0
    replaced: int = 0
    kept: int = 0


class Exported(NamedTuple):
    """How many timings were written, and how many left out because they are damaged."""

    written: int
    left_out: int


class TimingCache:
    """Reads and writes timings by graph and target. Every call opens the file anew: threads and forks may share it.

    Example:
        >>> import tempfile
        >>> from archdsl.latency import measure
        >>> from archdsl.runtimes.artefact import Artefact
        >>> from archdsl.runtimes.target import Target, resolve
        >>> network, on = Artefact("null", "a network", (3, 32, 32), macs=40_000_000), resolve(Target("null"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = TimingCache(Path(folder))
        ...     timing = measure(network, on, cache=cache)
        ...     cache.get(network, on.fingerprint) == timing
        True
    """

    def __init__(self, folder: Path | None = None):
        self.path = (folder or cache_folder()) / "timings.sqlite"
        self._file = CacheFile(self.path)

    def get(self, artefact: Artefact, fingerprint: str) -> Timing | None:
        """The timing of this network on this target, if there is an intact one."""
        key = key_of(artefact.graph_hash, artefact.build, fingerprint)
        entry = _or_warn(lambda: self._file.read(lambda connection: _entry_at(connection, key), None), None)
        return entry.timing if entry else None

    def put(self, artefact: Artefact, fingerprint: str, timing: Timing) -> bool:
        """Keep a timing, unless it is contended and the one there is not. Returns: whether it was kept"""
        entry = Entry.of(artefact, fingerprint, timing)

        def insert(connection: sqlite3.Connection) -> bool:
            before = _entry_at(connection, entry.key)
            if timing.contended and before and before.timing and not before.timing.contended:
                return False
            connection.execute(_INSERT, entry.row())
            return True

        return _or_warn(lambda: self._file.write(insert), False)

    def repeats(self, place: str) -> list[Repeat]:
        """The intact repeats of the last `DAYS` days at a place, the oldest first."""
        since = date_text(datetime.now(UTC) - timedelta(days=DAYS))
        select = f"SELECT {REPEAT_COLUMNS} FROM repeats WHERE place = ? AND date >= ? ORDER BY number"

        def find(connection: sqlite3.Connection) -> list[Any]:
            return connection.execute(select, (place, since)).fetchall()

        rows: list[Any] = _or_warn(lambda: self._file.read(find, []), [])
        return [repeat for repeat in map(repeat_from_row, rows) if repeat is not None]

    def note(self, repeat: Repeat) -> None:
        """Add a repeat. The latest `MOST_REPEATS` of a place stay, and none that is older than `DAYS` days."""
        until = date_text(datetime.now(UTC) - timedelta(days=DAYS))

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT INTO repeats ({REPEAT_COLUMNS}) VALUES (?, ?, ?, ?, ?)", repeat_row(repeat))
            connection.execute("DELETE FROM repeats WHERE date < ?", (until,))
            connection.execute(
                "DELETE FROM repeats WHERE place = ?1 AND number NOT IN"
                " (SELECT number FROM repeats WHERE place = ?1 ORDER BY number DESC LIMIT ?2)",
                (repeat.place, MOST_REPEATS),
            )

        _or_warn(lambda: self._file.write(insert), None)

    def entries(self, chosen: Filter | None = None) -> list[Entry]:
        """The rows that `chosen` takes, damaged ones too. Raises: CacheError when the file cannot be read."""
        chosen = chosen or Filter()
        rows: list[Any] = self._file.read(lambda connection: connection.execute(_SELECT + _ORDER).fetchall(), [])
        return [entry for entry in map(Entry.from_row, rows) if chosen.takes(entry)]

    def size_bytes(self) -> int:
        """Bytes that the cache takes on the disk."""
        return self._file.size_bytes()

    def prune(self, chosen: Filter, *, everything: bool = False, dry_run: bool = False) -> list[Entry]:
        """Remove the rows that `chosen` takes, give their room back to the disk, and return them.

        everything: required when `chosen` has no condition; what was learnt from repeats goes too
        dry_run:    only return what would be removed
        Raises: ArchError when nothing says what to remove, or two things do; CacheError when the file cannot be written
        """
        if bool(chosen) == everything:
            message = "everything is to be removed, or what a filter takes" if chosen else "nothing says what to remove"
            raise ArchError.at("archdsl cache", "prune", "usage", message, "give one filter or more, or all")
        found = self.entries(chosen)
        repeats = everything and self.size_bytes() > 0  # where there is no file, pruning makes none
        if dry_run or not (found or repeats):
            return found

        def remove(connection: sqlite3.Connection) -> list[Entry]:
            # by bytes: the text of a damaged key is not what it was read as
            rows = connection.execute(f"SELECT CAST(key AS BLOB), {COLUMNS} FROM timings{_ORDER}")
            entries = [(raw, Entry.from_row(row)) for raw, *row in rows]
            taken = {raw: entry for raw, entry in entries if chosen.takes(entry)}
            connection.create_function("is_taken", 1, taken.__contains__, deterministic=True)
            connection.execute("DELETE FROM timings WHERE is_taken(CAST(key AS BLOB))")
            if everything:
                connection.execute("DELETE FROM repeats")
            return list(taken.values())

        removed = self._file.write(remove)
        self._file.compact()
        return removed

    def export(self, out: Path | TextIO) -> Exported:
        """Write all intact timings, one a line, to an open file, or to a path, whole or not at all.

        Raises: ArchError when the file cannot be written or is not an export; CacheError when the cache cannot be read
        """
        entries = self.entries()
        intact = [entry for entry in entries if entry.timing]
        write_entries(out, intact)
        return Exported(len(intact), len(entries) - len(intact))

    def import_files(self, paths: Sequence[str]) -> Merged:
        """Merge exports (`-` is standard input) into this cache: all of them, or nothing if one line is wrong.

        Raises: ArchError with every wrong line; CacheError when the cache cannot be written
        """
        return self.merge(read_files(paths))

    def merge(self, entries: Sequence[Entry]) -> Merged:
        """Keep the better of each timing and what is there: one taken in peace, else the newer one.

        Raises: CacheError, and then nothing was merged
        """

        def insert(connection: sqlite3.Connection) -> Merged:
            counts = {"added": 0, "replaced": 0, "kept": 0}
            for entry in entries:
                before = _entry_at(connection, entry.key)
                is_better = before is None or entry.beats(before)
                counts["kept" if not is_better else "added" if before is None else "replaced"] += 1
                if is_better:
                    connection.execute(_INSERT, entry.row())
            return Merged(**counts)

        return self._file.write(insert) if entries else Merged()


def _or_warn(access: Callable[[], T], otherwise: T) -> T:
    """What an access to the cache's file gives; `otherwise`, with a CacheWarning, where the file cannot be used."""
    try:
        return access()
    except NoCache as error:
        warn_once(error.problems[0].message)
        return otherwise
    except CacheError as error:
        warn(error.problems[0].message)
        return otherwise


def _entry_at(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
    return None if row is None else Entry.from_row(row)


__all__ = ["SCHEMA", "CacheError", "CacheWarning", "Entry", "Exported", "Filter", "Merged", "TimingCache"]
