"""How commands print: JSON for scripts, tables and lines for people. All text passes one filter on its way out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from archdsl.events import Event, Step
from archdsl.files import as_json
from archdsl.outside_text import printable

if TYPE_CHECKING:
    from rich.text import Text

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
WIDTH_OF_FILES = 140
"""Columns of a table where stdout is no terminal."""


def say(line: str, *, err: bool = False) -> None:
    """One line on stdout, or on stderr: whatever text from outside is in it, it starts no other line, and a terminal
    obeys nothing of it."""
    print(printable(line), file=sys.stderr if err else sys.stdout)


def say_lines(text: str, *, err: bool = False) -> None:
    """A text of several lines that we wrote ourselves; what came from outside is on one line in it."""
    for line in text.split("\n"):
        say(line, err=err)


def print_json(data: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(as_json(data))


def print_table(table: object) -> None:
    """A rich table on stdout, as wide as the terminal, or as it needs to be when stdout is a file."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write(captured.get())


def print_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    right: Collection[str] = (),
    title: str | None = None,
    prose: Collection[str] = (),
    common: Collection[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Print a plain table; arguments as of `TerminalTable`."""
    from archdsl.report.terminal_table import TerminalTable

    print_table(TerminalTable(columns, list(rows), right, prose, common, optional, title))


def echo_note(text: str) -> None:
    """Something to know, on stderr: `note: …`."""
    say(f"note: {text}", err=True)


def echo_progress(every_s: float = 5.0) -> Callable[[int, int, float], None]:
    """What prints on stderr, every few seconds, how many images are done, and the metric by then."""
    last: float | None = None

    def tell(done: int, total: int, value: float) -> None:
        nonlocal last
        now = time.monotonic()
        last = now if last is None else last
        if now - last > every_s:
            last = now
            say(f"{done} of {total} images: {value:.2%}", err=True)

    return tell


def echo_step(event: Event) -> None:
    """A listener: steps on stderr, `timing micro_swin …`."""
    if isinstance(event, Step):
        say(f"{event.text} …", err=True)
