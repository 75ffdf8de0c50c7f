"""Standard output and error as a command sees them: what happens when they are closed, full, or know only ASCII.

Results go to stdout: when it cannot take them, the command ends with one line on stderr. stderr is talk: when it cannot
take it, the command goes on, and what it measures is not lost.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from archdsl.errors import ArchError, Place, Problem
from archdsl.outside_text import printable

_IN_ASCII = str.maketrans(
    {
        **dict.fromkeys("─━═╌╴╶╸╺", "-"),
        **dict.fromkeys("│┃║┤├", "|"),
        **dict.fromkeys("└┘┌┐┼┴┬╰╯╭╮╵╷", "+"),
        "±": "+-",
        "…": "...",
        "–": "-",
        "—": "-",
        "≈": "~",
        "→": "->",
        "●": "*",
        "·": ".",
        "×": "x",
        "µ": "u",
        "\u00a0": " ",
        "‑": "-",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "²": "^2",
    }
)


class StdoutLost(Exception):
    """Standard output cannot be written. reason: why; None when its reader has gone, as behind `| head`"""

    def __init__(self, reason: str | None):
        super().__init__(reason)
        self.reason = reason

    @property
    def error(self) -> ArchError:
        """The error of one line that says so."""
        message = f"standard output cannot be written: {self.reason or 'nobody reads it'}"
        return ArchError(Problem(Place("stdout"), "cannot-write", message))


class _Stream:
    """A standard stream that takes any text, and writes in ASCII what its encoding lacks."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write as much of the text as the encoding allows. Raises: what `_failed` raises"""
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, "it is closed")
            self._stream.write(encodable(text, self._stream.encoding or "ascii"))
        except (OSError, ValueError) as error:
            self._silence()
            self._failed(error, text)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand everything to the operating system. Raises: what `_failed` raises"""
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._silence()
            self._failed(error, "")

    def _failed(self, error: OSError | ValueError, text: str) -> None:
        """The stream did not take the text, and takes nothing any more."""

    def _silence(self) -> None:
        """What the stream still holds must not fail again when Python ends."""
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, cast(TextIO, self._stream).fileno())
            os.close(null)


class _Stdout(_Stream):
    """rescues: text that it cannot take goes to stderr, because nothing else keeps it; lost: that it was so"""

    def __init__(self, stream: TextIO | None):
        super().__init__(stream)
        self.rescues = False
        self.lost: StdoutLost | None = None

    def write(self, text: str) -> int:
        """Raises: StdoutLost, unless it rescues what was measured"""
        if self.lost is None:
            written = super().write(text)
            self.flush()  # a text that fails is known while there is still somewhere to put it
            return written
        if not self.rescues:
            raise self.lost
        self._rescue(text)
        return len(text)

    def _failed(self, error: OSError | ValueError, text: str) -> None:
        gone = isinstance(error, OSError) and error.errno == errno.EPIPE
        self.lost = StdoutLost(None if gone else getattr(error, "strerror", None) or str(error))
        self.rescues = self.rescues and not gone
        if not self.rescues:
            raise self.lost from None
        self._rescue(text)

    def _rescue(self, text: str) -> None:
        sys.stderr.write(text)


class _Stderr(_Stream):
    """Talk that cannot be written is left out."""


def encodable(text: str, encoding: str) -> str:
    """The text in characters that the encoding has: `±` is `+-` in ASCII, what has no likeness `\\u03b1`."""
    try:
        text.encode(encoding)
        return text
    except UnicodeError:
        plain = "".join(char if _has(encoding, char) else char.translate(_IN_ASCII) for char in text)
        return plain.encode(encoding, "backslashreplace").decode(encoding)


def _has(encoding: str, char: str) -> bool:
    with suppress(UnicodeError):
        return bool(char.encode(encoding))
    return False


def keep_unwritten() -> None:
    """From here on, what stdout does not take goes to stderr: for results that nothing else keeps."""
    if isinstance(sys.stdout, _Stdout):
        sys.stdout.rescues = True


def open_missing_descriptors() -> None:
    """Put /dev/null where a standard stream is closed: else the next file that is opened gets its number, and what a
    library prints is written into that file."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Within the block, `sys.stdout` and `sys.stderr` are as this module says.

    Raises: StdoutLost when stdout did not take everything
    """
    before = sys.stdout, sys.stderr
    out = _Stdout(before[0])
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, _Stderr(before[1]))
    try:
        yield
        out.flush()
        if out.lost is not None and out.rescues:
            raise out.lost
    finally:
        sys.stdout, sys.stderr = before


class OneLine(logging.Formatter):
    """A record of the log as one printable line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_in_lines() -> None:
    """Warnings of the log, ours and those of libraries, come as one line each on stderr."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(OneLine())
