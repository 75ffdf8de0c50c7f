"""Networks that crash the worker: after three crashes on one target a network is not tried there again.

The crashes are kept beside the timings, one JSON object a line. As with the timings, whatever happens to the file a
measurement goes on, told by a CacheWarning: damaged lines are moved aside, and on a full disk a crash is not counted.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from archdsl.errors import ArchError, MeasureError
from archdsl.latency.artefact import Artefact
from archdsl.latency.cache.entry import key_of
from archdsl.latency.cache.file import warn
from archdsl.latency.failure import failed, reason_of
from archdsl.latency.timing import utc_now
from archdsl.writing import cache_folder, locked, write_file

MOST_CRASHES = 3
"""So many crashes without a measurement between them, and a network is quarantined."""

CRASHES = ("crash", "exit", "device-error")
"""The reasons that count. A timeout does not: a longer deadline may be all it takes."""

MOST_BYTES = 16 * 2**20
"""A larger file of crashes is not one of ours."""

MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Crash:
    """One line of the file: a network, a target, and how the worker ended. Fields as in `entry.Entry`."""

    key: str
    network: str
    graph_hash: str
    build: str
    fingerprint: str
    reason: str
    message: str
    date: str

    def line(self) -> bytes:
        return (json.dumps(asdict(self), ensure_ascii=True) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes) -> Crash | None:
        """None for a damaged line. Fields of a newer archdsl are passed over."""
        try:
            data = json.loads(line)
            found = cls(**{field.name: data[field.name] for field in fields(cls)})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        whole = all(isinstance(value, str) for value in asdict(found).values())
        return found if whole and found.key == key_of(found.graph_hash, found.build, found.fingerprint) else None


@dataclass(frozen=True)
class Quarantined:
    """A network that is not tried again on a target. crashes: how many there were; the rest is of the last one"""

    network: str
    graph_hash: str
    build: str
    fingerprint: str
    crashes: int
    reason: str
    message: str
    date: str

    @property
    def runtime(self) -> str:
        return self.fingerprint.partition(" ")[0]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Quarantine:
    """The crashes that are kept in a folder. Every call opens the file anew: threads and processes may share it."""

    def __init__(self, folder: Path | None = None):
        self.path = (folder or cache_folder()) / "crashes.jsonl"

    def check(self, artefact: Artefact, fingerprint: str) -> None:
        """Errors: MeasureError (`quarantined`) when this network has crashed the worker too often on this target"""
        found = self._of(artefact, fingerprint)
        if len(found) < MOST_CRASHES:
            return
        message = (
            f"{artefact.name} has crashed the worker {len(found)} times on this target, and is not tried again; "
            f"the last time: {found[-1].message}"
        )
        hint = "`archdsl cache prune --quarantined` lifts this; another version of the runtime is another target"
        raise failed("quarantined", message, where=fingerprint.partition(" ")[0], hint=hint)

    def note(self, artefact: Artefact, fingerprint: str, error: MeasureError) -> bool:
        """Keep a failure if it was a crash. -> whether the network may be tried again"""
        reason = reason_of(error)
        if reason not in CRASHES:
            return True
        key = key_of(artefact.graph_hash, artefact.build, fingerprint)
        message = error.problems[0].message[:MOST_CHARACTERS]
        named = (key, artefact.name, artefact.graph_hash, artefact.build, fingerprint)
        self._change(lambda: self._append(Crash(*named, reason, message, utc_now())))
        return len(self._of(artefact, fingerprint)) < MOST_CRASHES

    def forgive(self, artefact: Artefact, fingerprint: str) -> None:
        """A measurement of this network has succeeded: the crashes before it were accidents."""
        if self._of(artefact, fingerprint):
            key = key_of(artefact.graph_hash, artefact.build, fingerprint)
            self._change(lambda: self._rewrite([crash for crash in self._read()[0] if crash.key != key]))

    def networks(self, runtimes: Sequence[str] = ()) -> list[Quarantined]:
        """What is quarantined, the oldest first; only on these runtimes, if any are named."""
        by_key: dict[str, list[Crash]] = {}
        for crash in self._sound():
            by_key.setdefault(crash.key, []).append(crash)
        found = []
        for crashes in by_key.values():
            if len(crashes) >= MOST_CRASHES:
                last = asdict(crashes[-1])
                del last["key"]
                found.append(Quarantined(**last, crashes=len(crashes)))
        return [network for network in found if not runtimes or network.runtime in runtimes]

    def lift(self, runtimes: Sequence[str] = (), *, dry_run: bool = False) -> list[Quarantined]:
        """Let what is quarantined be tried again. -> the networks it was. dry_run: only tell them

        Errors: ArchError when the file cannot be written
        """
        found = self.networks(runtimes)
        if found and not dry_run:
            keys = {key_of(network.graph_hash, network.build, network.fingerprint) for network in found}
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                self._rewrite([crash for crash in self._read()[0] if crash.key not in keys])
        return found

    def _of(self, artefact: Artefact, fingerprint: str) -> list[Crash]:
        key = key_of(artefact.graph_hash, artefact.build, fingerprint)
        return [crash for crash in self._sound() if crash.key == key]

    def _sound(self) -> list[Crash]:
        """All crashes; damaged lines are moved aside first."""
        try:
            found, damaged = self._read()
        except OSError as error:
            warn(f"the crashes in {self.path} could not be read: {error.strerror or error}")
            return []
        if damaged:
            self._change(self._mend)
        return found

    def _read(self) -> tuple[list[Crash], bool]:
        """The sound lines, and whether there were others. Raises OSError for a link, a pipe or a folder."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return [], False
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(f"{self.path} is not a regular file")
            if facts.st_size > MOST_BYTES:
                return [], True
            lines = file.read().splitlines()
        found = [Crash.from_line(line) for line in lines]
        return [crash for crash in found if crash], not all(found)

    def _append(self, crash: Crash) -> None:
        """Write one line whole, or none."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(f"{self.path} is not a regular file")
            begun = facts.st_size > 0 and os.pread(descriptor, 1, facts.st_size - 1) != b"\n"
            line = (b"\n" if begun else b"") + crash.line()
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, facts.st_size)
                raise OSError("the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _rewrite(self, crashes: Sequence[Crash]) -> None:
        write_file(self.path, b"".join(crash.line() for crash in crashes))

    def _mend(self) -> None:
        """Rename a damaged file, and begin a new one with its sound lines."""
        found, damaged = self._read()
        if not damaged:
            return  # another process was first
        aside = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
        os.rename(self.path, aside)
        self._rewrite(found)
        warn(f"the crashes in {self.path} were damaged; the file is now {aside}, and its sound lines are kept")

    def _change(self, action: Callable[[], None]) -> None:
        """Do `action` while no other process does; if it cannot be done, a CacheWarning tells it."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                action()
        except (ArchError, OSError) as error:
            warn(f"the crashes in {self.path} could not be kept: {error}")
