"""JSON-lines files that several processes append to: one JSON object a line, damaged and torn lines are skipped.

A record is written with one call under the file's lock. What a killed process leaves of a line is ended by the next
append, so that it costs that record alone. A checksum is a field of the record, and its owner compares it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

from archdsl.locks import acquire
from archdsl.owned import open_own

Record = dict[str, Any]


class BadLine(Exception):
    """What is wrong with a line.

    Args:
        rule: of the problem
        path: names of the nested fields in which it is; empty for the whole line
        column: where it is, from 1, when the path does not say it
    """

    def __init__(self, rule: str, message: str, *path: str, hint: str | None = None, column: int | None = None):
        super().__init__(message)
        self.rule, self.message, self.path, self.hint, self.column = rule, message, path, hint, column


class Lines(NamedTuple):
    """Lines of a file: the record of each, None for a damaged one; the byte after the last line; whether more follows.

    torn: bytes without the end of a line follow; another process may be writing them, or was killed
    """

    records: list[Record | None]
    end: int
    torn: bool


def append(path: str | os.PathLike[str], record: Mapping[str, Any], *, private: bool = False) -> None:
    """Append a record durably, as a whole line or not at all.

    Args:
        private: create the file for its owner alone
    Raises: OSError, as `open_own`; ValueError for NaN and infinity
    """
    line = f"{json.dumps(record, allow_nan=False)}\n".encode()
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600 if private else 0o644)
    try:
        acquire(descriptor)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError("the disk is full")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str | os.PathLike[str], start: int = 0) -> Lines:
    """Read the lines from byte `start` on; there are none in a file that does not exist.

    Raises: OSError, as `open_own`
    """
    try:
        descriptor = open_own(path)
    except FileNotFoundError:
        return Lines([], start, False)
    with open(descriptor, "rb") as file:
        file.seek(start)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    return Lines([parsed(line) for line in data[:whole].splitlines() if line], start + whole, whole < len(data))


def parsed(line: bytes) -> Record | None:
    """The record of a line; None for a damaged one."""
    try:
        return parse(line)
    except BadLine:
        return None


def parse(line: bytes) -> Record:
    """The record of a line, read strictly.

    Raises: BadLine for what is not one JSON object in UTF-8, for names that occur twice in one, and for NaN
    """
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadLine("encoding", "a line is UTF-8", column=len(line[: error.start].decode()) + 1) from None
    try:
        record = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadLine("syntax", f"a line is one JSON object: {error.msg}", column=error.pos + 1) from None
    except RecursionError:
        raise BadLine("limit", "a line is nested too deep") from None
    except ValueError:
        raise BadLine("limit", "a number has too many digits") from None
    if not isinstance(record, dict):
        raise BadLine("wrong-type", f"a line is one JSON object, got {type(record).__name__}")
    return record


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Record:
    record: Record = {}
    for name, value in pairs:
        if name in record:
            raise BadLine("duplicate-key", f"{shown(name)} stands twice in one object", name)
        record[name] = value
    return record


def _no_constant(name: str) -> None:
    raise BadLine("wrong-value", f"{name} is no number in JSON")


def shown(value: object) -> str:
    """A value for a message: at most 60 characters, all printable."""
    kind = type(value).__name__
    if isinstance(value, list | dict) or (isinstance(value, int) and abs(value) > 10**30):
        return f"{'an' if kind == 'int' else 'a'} {kind}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def limited_lines(file: IO[bytes], most_line_bytes: int, most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines of an untrusted file with their numbers, until `most_bytes` are read.

    A line over `most_line_bytes` is cut to one byte more than that, and its rest is skipped.
    """
    number = 1
    while line := file.readline(most_line_bytes + 1):
        most_bytes -= len(line)
        last = line
        while len(line) > most_line_bytes and not last.endswith(b"\n") and most_bytes >= 0:
            last = file.readline(1 << 20)
            most_bytes -= len(last)
            if not last:
                break
        yield number, line
        if most_bytes < 0:
            return
        number += 1
