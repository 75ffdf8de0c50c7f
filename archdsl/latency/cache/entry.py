"""One row of the timing cache: a timing, what it belongs to, and a checksum over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from functools import cached_property

from archdsl.latency.artefact import Artefact
from archdsl.latency.timing import Timing

COLUMNS = "key, network, graph_hash, fingerprint, build, date, body, checksum"
"""The fields of an `Entry`, in the order in which SQL gives and takes them."""

_DATE = "%Y-%m-%dT%H:%M:%SZ"


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
        key = key_of(artefact.graph_hash, artefact.build, fingerprint)
        body = json.dumps(timing.as_json(), sort_keys=True)
        name, graph_hash, build = artefact.name, artefact.graph_hash, artefact.build
        return cls(key, name, graph_hash, fingerprint, build, timing.date, body, checksum_of(key, body))

    @classmethod
    def from_row(cls, row: Sequence[object]) -> Entry:
        """A row of `COLUMNS`. Damage may have turned text into anything, which then fits no checksum."""
        return cls(*(value if isinstance(value, str) else repr(value) for value in row))

    def row(self) -> tuple[str, ...]:
        return astuple(self)

    @cached_property
    def timing(self) -> Timing | None:
        """The timing, or None if the row is damaged, or of an archdsl whose timings say other things."""
        if self.key != key_of(self.graph_hash, self.build, self.fingerprint):
            return None
        if self.checksum != checksum_of(self.key, self.body):
            return None
        try:
            timing = Timing.from_json(json.loads(self.body))
        except (ValueError, TypeError, RecursionError):
            return None
        return timing if timing.graph_hash == self.graph_hash else None

    @property
    def runtime(self) -> str:
        """The runtime's name; of a damaged row, as well as it can be told."""
        return self.timing.runtime if self.timing else self.fingerprint.partition(" ")[0]

    @property
    def taken(self) -> datetime | None:
        """When the timing was taken, if that can be told."""
        return read_date(self.timing.date if self.timing else self.date)

    def beats(self, other: Entry) -> bool:
        """Whether this timing should stand in the other's place: one taken in peace, else the newer one."""
        if self.timing is None or other.timing is None:
            return other.timing is None and self.timing is not None
        mine, theirs = self.timing, other.timing
        return (not mine.contended, mine.date) > (not theirs.contended, theirs.date)


def key_of(graph_hash: str, build: str, fingerprint: str) -> str:
    return _sha256(f"{graph_hash}\0{build}\0{fingerprint}")


def checksum_of(key: str, body: str) -> str:
    return _sha256(f"{key}\0{body}")


def read_date(text: str) -> datetime | None:
    """A date as `utc_now` writes it; None for anything else."""
    try:
        date = datetime.strptime(text, _DATE).replace(tzinfo=UTC)
    except ValueError:
        return None
    return date if date.strftime(_DATE) == text else None


def date_text(date: datetime) -> str:
    """A date in UTC as `utc_now` writes it."""
    return date.strftime(_DATE)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
