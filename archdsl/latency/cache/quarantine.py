"""Networks that crash the worker: after three crashes on one target a network is not tried there again.

The crashes are kept beside the timings, one JSON object a line. As with the timings, whatever happens to the file a
measurement goes on, with a CacheWarning: damaged lines are moved aside, and on a full disk a crash is not counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from archdsl import jsonl
from archdsl.errors import ArchError, MeasureError
from archdsl.failures import failed, reason_of
from archdsl.files import cache_folder, why_no_cache, write_file
from archdsl.json_fields import JsonFields
from archdsl.latency.cache.entry import key_of
from archdsl.latency.cache.file import name_aside, warn, warn_once
from archdsl.latency.timing import utc_now
from archdsl.locks import locked
from archdsl.runtimes.artefact import Artefact

MOST_CRASHES = 3
"""So many crashes without a measurement between them, and a network is quarantined."""

CRASHES = ("crash", "exit", "device-error")
"""The reasons that count. A timeout does not: a longer deadline may be all it takes."""

MOST_BYTES = 16 * 2**20
"""A larger file of crashes is not one of ours."""

MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Crash(JsonFields):
    """A network, a target, and how the worker ended: a line of the file, which also has the key of `entry.Entry`."""

    network: str
    graph_hash: str
    build: str
    fingerprint: str
    reason: str
    message: str
    date: str

    @property
    def key(self) -> str:
        """Of network and target, as in the cache."""
        return key_of(self.graph_hash, self.build, self.fingerprint)

    @property
    def runtime(self) -> str:
        """The runtime's name."""
        return self.fingerprint.partition(" ")[0]

    def as_record(self) -> jsonl.Record:
        """A line of the file."""
        return {"key": self.key, **self.as_json()}

    @classmethod
    def from_record(cls, record: jsonl.Record | None) -> Crash | None:
        """The crash of a line; None for a damaged one. Fields that a newer archdsl adds are ignored."""
        try:
            found = cls.from_json(record or {})
        except ValueError:
            return None
        return found if record and found.key == record.get("key") else None


@dataclass(frozen=True)
class Quarantined(Crash):
    """A network that is not tried again on a target: its last crash, and how many there were."""

    crashes: int


class Quarantine:
    """The crashes that are kept in a folder. Every call opens the file anew: threads and processes may share it."""

    def __init__(self, folder: Path | None = None):
        self.path = (folder or cache_folder()) / "crashes.jsonl"

    def check(self, artefact: Artefact, fingerprint: str) -> None:
        """Raise MeasureError (`quarantined`) when this network has crashed the worker too often on this target"""
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
        """Keep a failure if it was a crash, and return whether the network may be tried again."""
        reason = reason_of(error)
        if reason not in CRASHES:
            return True
        named = artefact.name, artefact.graph_hash, artefact.build, fingerprint
        crash = Crash(*named, reason, error.problems[0].message[:MOST_CHARACTERS], utc_now())
        self._change(lambda: jsonl.append(self.path, crash.as_record(), private=True))
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
        found = [
            Quarantined(**asdict(crashes[-1]), crashes=len(crashes))
            for crashes in by_key.values()
            if len(crashes) >= MOST_CRASHES
        ]
        return [network for network in found if not runtimes or network.runtime in runtimes]

    def lift(self, runtimes: Sequence[str] = (), *, dry_run: bool = False) -> list[Quarantined]:
        """Let what is quarantined be tried again.

        dry_run: change nothing
        Returns: the networks that were, or would be, released
        Raises: ArchError when the file cannot be written
        """
        found = self.networks(runtimes)
        if found and not dry_run:
            keys = {network.key for network in found}
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
            self._warn(f"the crashes in {self.path} could not be read: {error.strerror or error}")
            return []
        if damaged:
            self._change(self._mend)
        return found

    def _read(self) -> tuple[list[Crash], bool]:
        """The intact lines, and whether there were others. Raises OSError for a link, a pipe or a folder."""
        if self.path.exists() and self.path.stat().st_size > MOST_BYTES:
            return [], True
        lines = jsonl.read(self.path)
        found = [Crash.from_record(record) for record in lines.records]
        return [crash for crash in found if crash], lines.torn or not all(found)

    def _rewrite(self, crashes: Sequence[Crash]) -> None:
        write_file(self.path, "".join(f"{json.dumps(crash.as_record())}\n" for crash in crashes))

    def _mend(self) -> None:
        """Rename a damaged file, and begin a new one with its sound lines."""
        found, damaged = self._read()
        if not damaged:
            return  # another process was first
        aside = name_aside(self.path)
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
            self._warn(f"the crashes in {self.path} could not be kept: {error}")

    def _warn(self, message: str) -> None:
        if (why := why_no_cache(self.path.parent)) is not None:
            warn_once(why)
        else:
            warn(message)
