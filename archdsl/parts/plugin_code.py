"""Runs the code of plug-ins: whatever it raises becomes the plug-in's failure, and what it prints goes to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from archdsl.errors import RuleBroken

T = TypeVar("T")
_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_MOST_SAID = 500
HINT = "the mistake is in the plug-in; ARCHDSL_DEBUG=1 shows the whole traceback"


class PluginFailed(Exception):
    """The code of a plug-in raised an error of its own. Its text is one line: the error, and where it was raised."""


def run_plugin_code(call: Callable[[], T], file: str | None = None) -> T:
    """The result of `call`, which runs code of a plug-in.

    What it prints goes to stderr, since stdout is for results.

    Args: file: the plug-in's, of which a failure names the line
    Raises: RuleBroken as the plug-in raises it; PluginFailed for whatever else it raises, SystemExit included;
        KeyboardInterrupt and MemoryError pass through
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return call()
    except (RuleBroken, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        if os.environ.get("ARCHDSL_DEBUG"):
            traceback.print_exception(error)
        raise PluginFailed(_last_line(error, file)) from error


def run_part(cls: type, what: str, call: Callable[[], T]) -> T:
    """The result of `call`, which runs a method of the part `cls`; that of a plug-in as `run_plugin_code` does.

    Args: what: the part and what it is doing, as the subject of a sentence
    Raises: RuleBroken, with the rule `plugin` for a failure of the plug-in; what archdsl's own parts raise
    """
    if cls.__module__.partition(".")[0] == "archdsl":
        return call()
    try:
        return run_plugin_code(call, getattr(sys.modules.get(cls.__module__), "__file__", None))
    except PluginFailed as failed:
        raise RuleBroken(f"{what} failed: {failed}", rule="plugin", hint=HINT) from failed.__cause__


def _last_line(error: BaseException, file: str | None) -> str:
    """The last line of a traceback, and the last place in it that is in the file, or else outside archdsl."""
    text = traceback.format_exception_only(error)[-1]
    said = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_MOST_SAID]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{said} ({error.filename}:{error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((_OURS, "<frozen"))]
    places = [frame for frame in frames if frame.filename == file] or frames
    return f"{said} ({places[-1].filename}:{places[-1].lineno})" if places else said
