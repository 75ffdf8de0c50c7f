"""Repeats as rows of the timing cache, with a checksum over each."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from archdsl.latency.cache.entry import checksum_of, read_date
from archdsl.latency.clock.repeatability import Repeat

REPEAT_COLUMNS = "place, key, median_ms, date, checksum"
"""The fields of a `Repeat` and its checksum, in the order in which SQL gives and takes them."""


def repeat_row(repeat: Repeat) -> tuple[str, str, float, str, str]:
    """A row of `REPEAT_COLUMNS`."""
    return repeat.place, repeat.key, repeat.median_ms, repeat.date, _checksum(repeat)


def repeat_from_row(row: Sequence[object]) -> Repeat | None:
    """The repeat of a row of `REPEAT_COLUMNS`, or None if the row is damaged."""
    place, key, median_ms, date, checksum = row
    if not (isinstance(place, str) and isinstance(key, str) and isinstance(median_ms, float) and isinstance(date, str)):
        return None
    repeat = Repeat(place, key, median_ms, date)
    sound = isfinite(median_ms) and median_ms > 0 and read_date(date) is not None
    return repeat if sound and checksum == _checksum(repeat) else None


def _checksum(repeat: Repeat) -> str:
    return checksum_of(repeat.key, f"{repeat.place}\0{repeat.median_ms!r}\0{repeat.date}")
