"""Exclusive locks on files and folders, between all processes that see the same file system.

The lock is the kernel's (`flock`, by the library filelock): it ends with its process, however that ends. Some network
file systems have no locks. There the work goes on without: what is locked here is also written atomically, so two
processes at once lose at most one of two updates. `locked` and `acquire` return False then, for those who must know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from filelock import lock_descriptor

from archdsl.owned import open_own

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05


class LockBusy(Exception):
    """Another process has held the lock for as long as the caller would wait."""


@contextmanager
def locked(path: str | os.PathLike[str], timeout_s: float = inf) -> Iterator[bool]:
    """Hold the exclusive lock of `path` in the block.

    Args:
        path: a folder, or a file for nothing else, which is created when it is missing and left in place afterwards
        timeout_s: how long to wait for the lock; 0 tries once
    Yields: True; False when the file system has no locks
    Raises:
        LockBusy: the lock was not obtained within `timeout_s`
        OSError: `path` cannot be opened, e.g. NotOurs because it is a link or a pipe
    """
    if os.path.isdir(path) and not os.path.islink(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    else:
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield acquire(descriptor, timeout_s)
    finally:
        os.close(descriptor)


def acquire(descriptor: int, timeout_s: float = inf) -> bool:
    """Take the exclusive lock of an open file. It is released when the descriptor is closed.

    Args:
        descriptor: of a file or folder; two descriptors of one file exclude each other within a process, too
        timeout_s: how long to wait for the lock; 0 tries once
    Returns: True; False when the file system has no locks
    Raises: LockBusy when the lock was not obtained within `timeout_s`
    """
    end, pause = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while True:
        try:
            if lock_descriptor(descriptor, blocking=False):
                return True
        except OSError:
            return False
        if time.monotonic() >= end:
            raise LockBusy(f"another process has held the lock for {timeout_s:g} s")
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)
