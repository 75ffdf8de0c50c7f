"""Timings as text: one JSON object a line, to carry them from one machine to another.

A line names its format, what the timing belongs to, the timing, and a checksum over all of that but the network's name:

    {"archdsl_timing": 1, "key": …, "network": …, "graph_hash": …, "build": …, "fingerprint": …,
     "timing": {"median_ms": …, …}, "checksum": …}

Files come from anywhere, so a line is read with limits, and every problem is reported with its place.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TextIO

from pydantic import ValidationError

from archdsl import jsonl
from archdsl.errors import ArchError, Place, Problem, at_argument
from archdsl.files import write_file
from archdsl.jsonl import BadLine, limited_lines, shown
from archdsl.language.text.explain import rule_of
from archdsl.language.text.limits import MAX_PROBLEMS
from archdsl.latency.cache.entry import Entry, checksum_of, key_of, read_date
from archdsl.latency.timing import Timing

FORMAT = 1
MARK = "archdsl_timing"
TEXTS = ("key", "network", "graph_hash", "build", "fingerprint", "checksum")

MAX_LINE_BYTES = 64 << 10
MAX_LINES = 100_000
"""Timings in all files of one import."""
MAX_TOTAL_BYTES = 256 << 20
"""Bytes of all files of one import."""


def write_entries(out: Path | TextIO, entries: Iterable[Entry]) -> None:
    """Write intact entries to an open file, or to a path, whole or not at all.

    Raises: ArchError when the path holds something that is not an export, or cannot be written
    """
    lines = [f"{_line_of(entry)}\n" for entry in entries]
    if isinstance(out, Path):
        _check_replaceable(out)
        write_file(out, "".join(lines))
    else:
        out.writelines(lines)


def _line_of(entry: Entry) -> str:
    texts = {name: getattr(entry, name) for name in TEXTS}
    checksum = texts.pop("checksum")
    return json.dumps({MARK: FORMAT, **texts, "timing": json.loads(entry.body), "checksum": checksum})


def _check_replaceable(path: Path) -> None:
    """Raise ArchError when the path holds anything but an earlier export, which would be lost."""
    if not os.path.lexists(path):
        return
    mark, start = f'{{"{MARK}"'.encode(), b"?"
    with suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with open(path, "rb") as file:
                start = file.read(len(mark))
    if start not in (mark, b""):
        message = f"{path} is there already, and is no export of timings"
        raise ArchError.at(str(path), str(path), "cannot-write", message, "choose another name")


def read_files(paths: Sequence[str]) -> list[Entry]:
    """The timings of exports; `-` is standard input.

    Raises: ArchError with everything that is wrong with any line (the first `MAX_PROBLEMS`) or file
    """
    found: list[Entry] = []
    problems: list[Problem] = []
    bytes_left = MAX_TOTAL_BYTES
    for path in paths:
        name = "<stdin>" if path == "-" else path
        try:
            with _opened(path) as file:
                for number, line in limited_lines(file, MAX_LINE_BYTES, bytes_left):
                    bytes_left -= len(line)
                    if len(found) >= MAX_LINES or bytes_left < 0:
                        message = f"one import takes at most {MAX_LINES:_} timings or {MAX_TOTAL_BYTES >> 20} MiB"
                        problems.append(Problem(Place(name, number), "limit", message, "import fewer at once"))
                        break
                    if line.strip() or len(line) > MAX_LINE_BYTES:
                        try:
                            found.append(_entry(line))
                        except* BadLine as wrong:
                            lines = [one for one in wrong.exceptions if isinstance(one, BadLine)]
                            problems += [_problem(one, line, name, number) for one in lines]
                    if len(problems) >= MAX_PROBLEMS:
                        break
        except OSError as error:
            message = f"{name} cannot be read: {error.strerror or error}"
            problems.append(Problem(at_argument(name, name), "cannot-read", message))
        if bytes_left < 0 or len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise ArchError(problems)
    return found


def _opened(path: str) -> IO[bytes]:
    """The file, or a pipe's end. A device or a folder is an OSError."""
    if path == "-":
        return os.fdopen(os.dup(0), "rb")
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
        raise OSError("it is neither a file nor a pipe")
    return open(path, "rb")


def _problem(error: BadLine, raw: bytes, file: str, number: int) -> Problem:
    """What is wrong with a line, placed at the last of the nested keys of its path."""
    text = raw.decode(errors="replace").rstrip("\r\n")
    position = 0
    for name in error.path:
        position = max(position, text.find(json.dumps(name), position))
    width = len(error.path[-1]) + 2 if error.path else 1
    place = Place(file, number, error.column or position + 1, text, width)
    return Problem(place, error.rule, error.message, error.hint, ".".join(error.path) or None)


def _entry(raw: bytes) -> Entry:
    """The entry of a line. Raises: BadLine, or an ExceptionGroup of them"""
    if len(raw) > MAX_LINE_BYTES:
        raise BadLine("limit", f"a line has at most {MAX_LINE_BYTES:_} bytes, but this one has more")
    data = jsonl.parse(raw)
    version = data.get(MARK)
    if type(version) is not int:
        hint = "`archdsl cache export` writes such files"
        raise BadLine("missing-key", f"a line that holds a timing begins with {MARK!r} and its format", hint=hint)
    if version != FORMAT:
        message = f"the timing is in format {shown(version)}, this archdsl reads format {FORMAT}"
        raise BadLine("version", message, MARK, hint="use the archdsl that wrote it, or a newer one")
    if wrong := list(_wrong(data)):
        raise ExceptionGroup("a line", wrong)
    key, network, graph_hash, build, fingerprint, checksum = (data[name] for name in TEXTS)
    timing = data["timing"]
    if timing["graph_hash"] != graph_hash:
        raise BadLine("wrong-value", "the timing is of another graph than the line says", "graph_hash")
    if key != key_of(graph_hash, build, fingerprint):
        raise BadLine("checksum", "the key does not fit graph_hash, build and fingerprint", "key")
    body = json.dumps(timing, sort_keys=True)
    if checksum != checksum_of(key, body):
        raise BadLine("checksum", "the checksum does not fit: the line has been changed", "checksum")
    return Entry(key, network, graph_hash, fingerprint, build, timing["date"], body, checksum)


def _wrong(data: jsonl.Record) -> Iterator[BadLine]:
    """All that is wrong with the fields of a line, and with those of its timing."""
    for name in data:
        if name not in (MARK, *TEXTS, "timing"):
            yield BadLine("unknown-key", f"unknown key {shown(name)}", name)
    for name in (*TEXTS, "timing"):
        kind, word = (dict, "an object") if name == "timing" else (str, "a text")
        value = data.get(name)
        if name not in data:
            yield BadLine("missing-key", f"`{name}` is missing")
        elif not isinstance(value, kind):
            yield BadLine("wrong-type", f"{name} is {word}, got {shown(value)}", name)
        elif isinstance(value, str) and not value.isprintable():
            yield BadLine("wrong-value", f"{name} has characters that cannot be printed", name)
        elif isinstance(value, dict):
            yield from _wrong_timing(value)


def _wrong_timing(timing: dict[str, Any]) -> Iterator[BadLine]:
    try:
        date = Timing.from_json(timing).date
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False, include_input=False):
            yield BadLine(rule_of(one["type"]), f"timing: {one['msg']}", "timing", *map(str, one["loc"]))
    except (ValueError, RecursionError):
        yield BadLine("wrong-value", "the timing cannot be read", "timing")
    else:
        if read_date(date) is None:
            message = f"a date is written 2026-01-31T12:00:00Z, got {shown(date)}"
            yield BadLine("wrong-value", message, "timing", "date")
