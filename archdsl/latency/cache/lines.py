"""Timings as text: one JSON object a line, to carry them from one machine to another.

A line names its format, what the timing belongs to, the timing, and a checksum over all of that but the network's name:

    {"archdsl_timing": 1, "key": …, "network": …, "graph_hash": …, "build": …, "fingerprint": …,
     "timing": {"median_ms": …, …}, "checksum": …}

Files come from anywhere, so a line is read with limits, and everything that is wrong is told with its place.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, TextIO

from pydantic import ValidationError

from archdsl.errors import ArchError, Place, Problem, at_argument
from archdsl.latency.cache.entry import Entry, checksum_of, key_of, read_date
from archdsl.latency.timing import Timing
from archdsl.spec.limits import MAX_PROBLEMS
from archdsl.writing import write_with

FORMAT = 1
MARK = "archdsl_timing"
TEXTS = ("key", "network", "graph_hash", "build", "fingerprint", "checksum")

MAX_LINE_BYTES = 64 << 10
MAX_LINES = 100_000
"""Timings in all files of one import."""
MAX_TOTAL_BYTES = 256 << 20
"""Bytes of all files of one import."""

_STEP_BYTES = 1 << 20


class _Wrong(Exception):
    """What is wrong with a line, and the names under which it stands."""

    def __init__(self, rule: str, message: str, *path: str, hint: str | None = None, column: int | None = None):
        super().__init__(message)
        self.rule, self.message, self.path, self.hint, self.column = rule, message, path, hint, column


def line_of(entry: Entry) -> str:
    """An intact entry as a line, without its end."""
    texts = {name: getattr(entry, name) for name in TEXTS}
    checksum = texts.pop("checksum")
    return json.dumps({MARK: FORMAT, **texts, "timing": json.loads(entry.body), "checksum": checksum})


def write_entries(out: Path | TextIO, entries: Iterable[Entry]) -> None:
    """Write intact entries to an open file, or to a path, whole or not at all.

    Errors: ArchError when the path holds something that is not an export, or cannot be written
    """
    if isinstance(out, Path):
        _refuse_foreign(out)
        write_with(out, lambda file: file.writelines(f"{line_of(entry)}\n".encode() for entry in entries))
    else:
        out.writelines(f"{line_of(entry)}\n" for entry in entries)


def read_files(paths: Sequence[str]) -> list[Entry]:
    """The timings of exports; `-` is standard input.

    Errors: ArchError with everything that is wrong with any line (the first `MAX_PROBLEMS`) or file
    """
    found: list[Entry] = []
    problems: list[Problem] = []
    bytes_left = MAX_TOTAL_BYTES
    for path in paths:
        name = "<stdin>" if path == "-" else path
        try:
            with closing(_opened(path)) as file:
                for number, line in _lines(file, bytes_left):
                    bytes_left -= len(line)
                    if len(found) >= MAX_LINES or bytes_left < 0:
                        limit = f"{MAX_LINES:_} timings or {MAX_TOTAL_BYTES >> 20} MiB"
                        message = f"one import takes at most {limit}"
                        problems.append(Problem(Place(name, number), "limit", message, "import fewer at once"))
                        break
                    if len(line) > MAX_LINE_BYTES or line.strip():
                        entry, wrong = _read_line(line, name, number)
                        found.extend(entry)
                        problems.extend(wrong)
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


def _lines(file: IO[bytes], bytes_left: int) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers. Of one that is too long only as much as shows that it is, and the rest is skipped."""
    number = 1
    while line := file.readline(MAX_LINE_BYTES + 1):
        bytes_left -= len(line)
        last = line
        while len(line) > MAX_LINE_BYTES and not last.endswith(b"\n") and bytes_left >= 0:
            last = file.readline(_STEP_BYTES)
            bytes_left -= len(last)
            if not last:
                break
        yield number, line
        if bytes_left < 0:
            return
        number += 1


def _read_line(raw: bytes, file: str, number: int) -> tuple[list[Entry], list[Problem]]:
    """The entry of a line, or all that is wrong with it."""
    text = raw.decode(errors="replace").rstrip("\r\n")
    try:
        return [_entry(raw, text)], []
    except _Wrong as error:
        wrong = [error]
    except ExceptionGroup as group:
        wrong = [error for error in group.exceptions if isinstance(error, _Wrong)]
    problems = []
    for one in wrong:
        column = one.column or _column(text, one.path)
        width = len(one.path[-1]) + 2 if one.path else 1
        place = Place(file, number, column, text, width)
        problems.append(Problem(place, one.rule, one.message, one.hint, ".".join(one.path) or None))
    return [], problems


def _entry(raw: bytes, text: str) -> Entry:
    """Errors: _Wrong, or an ExceptionGroup of them."""
    data = _parsed(raw, text)
    version = data.get(MARK)
    if type(version) is not int:
        hint = "`archdsl cache export` writes such files"
        raise _Wrong("missing-key", f"a line that holds a timing begins with {MARK!r} and its format", hint=hint)
    if version != FORMAT:
        message = f"the timing is in format {_shown(version)}, this archdsl reads format {FORMAT}"
        raise _Wrong("version", message, MARK, hint="use the archdsl that wrote it, or a newer one")
    timing: Any = data.get("timing")
    wrong = [*_wrong_fields(data), *(_wrong_timing(timing) if isinstance(timing, dict) else [])]
    if wrong:
        raise ExceptionGroup("a line", wrong)
    key, network, graph_hash, build, fingerprint, checksum = (data[name] for name in TEXTS)
    if timing["graph_hash"] != graph_hash:
        raise _Wrong("wrong-value", "the timing is of another graph than the line says", "graph_hash")
    if key != key_of(graph_hash, build, fingerprint):
        raise _Wrong("checksum", "the key does not fit graph_hash, build and fingerprint", "key")
    body = json.dumps(timing, sort_keys=True)
    if checksum != checksum_of(key, body):
        raise _Wrong("checksum", "the checksum does not fit: the line has been changed", "checksum")
    return Entry(key, network, graph_hash, fingerprint, build, timing["date"], body, checksum)


def _parsed(raw: bytes, text: str) -> dict[str, Any]:
    """A line's JSON object, read strictly."""
    if len(raw) > MAX_LINE_BYTES:
        raise _Wrong("limit", f"a line has at most {MAX_LINE_BYTES:_} bytes, but this one has more")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise _Wrong("encoding", "a line is UTF-8", column=len(raw[: error.start].decode()) + 1) from None
    try:
        data = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _Wrong("syntax", f"a line is one JSON object: {error.msg}", column=error.pos + 1) from None
    except RecursionError:
        raise _Wrong("limit", "a line is nested too deep") from None
    except ValueError:
        raise _Wrong("limit", "a number has too many digits") from None
    if not isinstance(data, dict):
        raise _Wrong("wrong-type", f"a line is one JSON object, got {type(data).__name__}")
    return data


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, value in pairs:
        if name in data:
            raise _Wrong("duplicate-key", f"{_shown(name)} stands twice in one object", name)
        data[name] = value
    return data


def _no_constant(name: str) -> None:
    raise _Wrong("wrong-value", f"{name} is no number in JSON")


def _wrong_fields(data: dict[str, Any]) -> list[_Wrong]:
    """All that is wrong with a line's own fields."""
    known = (MARK, *TEXTS, "timing")
    wrong = [_Wrong("unknown-key", f"unknown key {_shown(name)}", name) for name in data if name not in known]
    for name in (*TEXTS, "timing"):
        kind, word = (dict, "an object") if name == "timing" else (str, "a text")
        value = data.get(name)
        if name not in data:
            wrong.append(_Wrong("missing-key", f"`{name}` is missing"))
        elif not isinstance(value, kind):
            wrong.append(_Wrong("wrong-type", f"{name} is {word}, got {_shown(value)}", name))
        elif isinstance(value, str) and not value.isprintable():
            wrong.append(_Wrong("wrong-value", f"{name} has characters that cannot be printed", name))
    return wrong


def _wrong_timing(timing: dict[str, Any]) -> list[_Wrong]:
    """All that is wrong with a line's timing."""
    try:
        found = Timing.from_json(timing)
    except ValidationError as error:
        return [
            _Wrong(_rule(one["type"]), f"timing: {one['msg']}", "timing", *(str(part) for part in one["loc"]))
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    except (ValueError, RecursionError):
        return [_Wrong("wrong-value", "the timing cannot be read", "timing")]
    if read_date(found.date) is None:
        message = f"a date is written 2026-01-31T12:00:00Z, got {_shown(found.date)}"
        return [_Wrong("wrong-value", message, "timing", "date")]
    return []


def _rule(kind: str) -> str:
    """Our word for pydantic's."""
    words = {"missing": "missing-key", "extra_forbidden": "unknown-key", "value_error": "wrong-value"}
    return words.get(kind) or ("wrong-type" if kind.endswith(("_type", "_parsing")) else "out-of-range")


def _column(text: str, path: Sequence[str]) -> int:
    """Where the last of nested keys stands, as far as they are found."""
    position = 0
    for name in path:
        found = text.find(json.dumps(name), position)
        if found < 0:
            break
        position = found
    return position + 1


def _shown(value: object) -> str:
    """A value in a message: never long, never unprintable."""
    kind = type(value).__name__
    if isinstance(value, list | dict) or (isinstance(value, int) and abs(value) > 10**30):
        return f"{'an' if kind == 'int' else 'a'} {kind}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _refuse_foreign(path: Path) -> None:
    """Raise when the path holds anything but an earlier export: it would be lost."""
    try:
        kind = path.lstat().st_mode
        start = b"?"
        if stat.S_ISREG(kind):
            with open(path, "rb") as file:
                start = file.read(len(MARK) + 4)
    except FileNotFoundError:
        return
    except OSError:
        start = b"?"
    if start and not start.startswith(f'{{"{MARK}"'.encode()):
        message = f"{path} is there already, and is no export of timings"
        raise ArchError(Problem(at_argument(str(path), str(path)), "cannot-write", message, "choose another name"))
