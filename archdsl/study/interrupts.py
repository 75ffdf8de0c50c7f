"""Ctrl-C and SIGTERM: the first ends the program cleanly, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

EXIT_CODE = 130
_SHOW_CURSOR = b"\x1b[?25h\n"


class Interrupted(KeyboardInterrupt):
    """The user, or the system, wants the search to end."""


class Interrupts:
    """While entered, the first SIGINT or SIGTERM raises `Interrupted`, but only inside `interruptible`: never while a
    record is being written. Elsewhere it only sets `requested`. A second signal ends the process with exit code 130.

    Only the main thread of a program gets signals; in another thread nothing is done.

    requested: whether a signal has come since the object was entered
    """

    def __init__(self) -> None:
        self.requested = False
        self._may_raise = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A signal in the block raises. Raises: Interrupted, also for a signal that came before"""
        self.heed()
        before, self._may_raise = self._may_raise, True
        try:
            yield
        finally:
            self._may_raise = before

    def heed(self) -> None:
        """Raises: Interrupted, for a signal that came since the object was entered"""
        if self.requested:
            raise Interrupted

    @contextlib.contextmanager
    def uninterruptible(self) -> Iterator[None]:
        """A part of `interruptible` in which no signal raises; one that came is raised when the block ends."""
        before, self._may_raise = self._may_raise, False
        try:
            yield
        finally:
            self._may_raise = before
        if self.requested and before:
            raise Interrupted

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signature of handlers
        if self.requested:
            if sys.stderr.isatty():
                with contextlib.suppress(OSError):
                    os.write(2, _SHOW_CURSOR)
            os._exit(EXIT_CODE)
        self.requested = True
        if self._may_raise:
            raise Interrupted
