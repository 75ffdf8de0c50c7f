"""Rows of the timing cache: timings and repeats, each with a checksum, and the filter that selects timings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from math import isfinite
from typing import Any, cast

from archdsl.backends.trt.library import gpu_name, has_gpu_driver
from archdsl.errors import ArchError
from archdsl.latency.repeatability import Repeat
from archdsl.latency.timing import DATE_FORMAT, Timing, date_text
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.telemetry.cpu import cpu_name


@dataclass(frozen=True)
class Entry:
    """A row as it stands in the file, damaged or not.

    key:         `key_of` graph_hash, build and fingerprint
    network:     what the network was called when it was timed; '' where an older archdsl did not keep it
    fingerprint: of the target
    build:       how the artefact came from the graph, usually one of `FORMS`
    date:        of the timing, ISO 8601 in UTC
    body:        the timing as JSON text
    checksum:    `checksum_of` key and body
    """

    key: str
    network: str
    graph_hash: str
    fingerprint: str
    build: str
    date: str
    body: str
    checksum: str

    @classmethod
    def of(cls, artefact: Artefact, fingerprint: str, timing: Timing) -> Entry:
        """The row of a new timing."""
        name, graph_hash, build = artefact.name, artefact.graph_hash, artefact.build
        key, body = key_of(graph_hash, build, fingerprint), json.dumps(timing.as_json(), sort_keys=True)
        return cls(key, name, graph_hash, fingerprint, build, timing.date, body, checksum_of(key, body))

    @classmethod
    def from_row(cls, row: Sequence[object]) -> Entry:
        """A row of `file.COLUMNS`. Damage may have turned text into anything, which then fits no checksum."""
        return cls(*(value if isinstance(value, str) else repr(value) for value in row))

    def row(self) -> tuple[str, ...]:
        return astuple(self)

    @cached_property
    def timing(self) -> Timing | None:
        """The timing, or None if the row is damaged, or of an archdsl whose timings say other things."""
        key = key_of(self.graph_hash, self.build, self.fingerprint)
        if (self.key, self.checksum) != (key, checksum_of(key, self.body)):
            return None
        try:
            timing = Timing.from_json(json.loads(self.body))
        except (ValueError, TypeError, RecursionError):
            return None
        return timing if timing.graph_hash == self.graph_hash else None

    @property
    def runtime(self) -> str:
        """The runtime's name; of a damaged row, what its fingerprint begins with."""
        return self.timing.runtime if self.timing else self.fingerprint.partition(" ")[0]

    @property
    def taken(self) -> datetime | None:
        """When the timing was taken; None where the date cannot be read."""
        return read_date(self.timing.date if self.timing else self.date)

    def beats(self, other: Entry) -> bool:
        """Whether this timing should stand in the other's place: one taken in peace, else the newer one."""
        if self.timing is None or other.timing is None:
            return other.timing is None and self.timing is not None
        mine, theirs = self.timing, other.timing
        return (not mine.contended, mine.date) > (not theirs.contended, theirs.date)


def repeat_row(repeat: Repeat) -> tuple[str, str, float, str, str]:
    """A row of `file.REPEAT_COLUMNS`."""
    return repeat.place, repeat.key, repeat.median_ms, repeat.date, _repeat_checksum(repeat)


def repeat_from_row(row: Sequence[object]) -> Repeat | None:
    """The repeat of a row of `file.REPEAT_COLUMNS`, or None if the row is damaged."""
    *values, checksum = row
    if [type(value) for value in values] != [str, str, float, str]:
        return None
    repeat = Repeat(*cast(Any, values))
    sound = isfinite(repeat.median_ms) and repeat.median_ms > 0 and read_date(repeat.date) is not None
    return repeat if sound and checksum == _repeat_checksum(repeat) else None


def _repeat_checksum(repeat: Repeat) -> str:
    return checksum_of(repeat.key, f"{repeat.place}\0{repeat.median_ms!r}\0{repeat.date}")


@dataclass(frozen=True)
class Filter:
    """What all given conditions hold for; without any, everything.

    runtimes:       the timing is of one of these
    older_than_s:   it was taken longer ago, in seconds
    contended:      somebody else used the cores meanwhile
    other_machines: it was taken on a device that this machine does not have
    damaged:        the row's checksum does not fit, or this archdsl cannot read its timing
    """

    runtimes: tuple[str, ...] = ()
    older_than_s: float | None = None
    contended: bool = False
    other_machines: bool = False
    damaged: bool = False

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return self != Filter()

    def takes(self, entry: Entry, now: datetime | None = None) -> bool:
        timing, taken = entry.timing, entry.taken
        if self.runtimes and entry.runtime not in self.runtimes:
            return False
        if self.older_than_s is not None:
            age = None if taken is None else ((now or datetime.now(UTC)) - taken).total_seconds()
            if age is None or age <= self.older_than_s:
                return False
        if self.contended and not (timing and timing.contended):
            return False
        if self.damaged and timing is not None:
            return False
        return not self.other_machines or is_of_another_machine(entry)


def is_of_another_machine(entry: Entry) -> bool:
    """Whether the fingerprint names a device that this machine does not have, whatever runtimes are installed here.

    A fingerprint that cannot be read says nothing, and neither does a GPU that has a driver but cannot be asked.
    """
    parts = entry.fingerprint.split(" | ")
    if len(parts) < 2:
        return False
    device, _, name = parts[1].partition(" ")
    if device == "cuda":
        here = _gpu_here()
        return not has_gpu_driver() if here is None else name != here
    return name not in (cpu_name(), _device_here(entry.runtime, device))


@cache
def _gpu_here() -> str | None:
    return gpu_name()


@cache
def _device_here(runtime_name: str, device: str) -> str | None:
    """What the runtime calls this machine's device; None when there is none."""
    try:
        return runtime(runtime_name).device_name(device) if runtime_name in RUNTIMES else None
    except (ArchError, ImportError, OSError, RuntimeError):
        return None


def key_of(graph_hash: str, build: str, fingerprint: str) -> str:
    """The key of a timing: a digest of network, build and target."""
    return _digest(graph_hash, build, fingerprint)


def checksum_of(key: str, body: str) -> str:
    """The checksum of a row."""
    return _digest(key, body)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def read_date(text: str) -> datetime | None:
    """A date as `date_text` writes it; None for anything else."""
    try:
        date = datetime.strptime(text, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return date if date_text(date) == text else None
