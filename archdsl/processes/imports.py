"""Where a child process imports from: never the folder that a user happens to be in, which may hold a `queue.py`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SAFE_PATH_VARIABLE = "PYTHONSAFEPATH"
_PACKAGE = str(Path(__file__).parents[2])
"""The folder that holds the package archdsl."""
_HAS_LEFT = False


def import_path() -> list[str]:
    """The folders and archives that this process imports from, without the one that Python put first by itself.

    That is the folder of the program, or the working folder; what PYTHONPATH or a package names is kept. The folder of
    archdsl itself is always there: at the end where it is that one, so that nothing in it comes before a library.
    """
    found = [os.path.abspath(entry) for entry in sys.path if entry]
    first = None if sys.flags.safe_path or _HAS_LEFT else _put_first()
    if first in found:
        found.remove(first)
    return found if _PACKAGE in found else [*found, _PACKAGE]


@contextlib.contextmanager
def safe_spawn() -> Iterator[None]:
    """In the block, processes that `multiprocessing` spawns import libraries first, and a user's folder last."""
    before, variable = list(sys.path), os.environ.get(SAFE_PATH_VARIABLE)
    safe = import_path()
    sys.path[:] = [*safe, *(entry for entry in map(os.path.abspath, before) if entry not in safe)]
    os.environ[SAFE_PATH_VARIABLE] = "1"
    try:
        yield
    finally:
        sys.path[:] = before
        if variable is None:
            del os.environ[SAFE_PATH_VARIABLE]
        else:
            os.environ[SAFE_PATH_VARIABLE] = variable


def left(folder: str | None) -> None:
    """Note that the folder which Python put first is gone from `sys.path`; it comes back last if archdsl is in it."""
    global _HAS_LEFT
    _HAS_LEFT = True
    if folder == _PACKAGE:
        sys.path.append(folder)


def _put_first() -> str | None:
    """The folder that Python put first by itself; None where it wrote '' instead."""
    main = sys.modules.get("__main__")
    program = getattr(main, "__file__", None)
    if program is None:
        return None
    with contextlib.suppress(OSError):  # the working folder is gone
        return os.getcwd() if getattr(main, "__spec__", None) else os.path.dirname(os.path.abspath(program))
    return None
