"""The lock of a device: processes of one machine measure on it one after the other."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator

from archdsl.files import cache_folder
from archdsl.locks import acquire
from archdsl.owned import open_own


@contextlib.contextmanager
def device_lock(device: str) -> Iterator[None]:
    """Hold the lock of a device in the block, so that no two processes measure on it at once.

    The lock is that of a file in the cache folder, and ends with the process, however that ends. It excludes only
    processes that have the same cache folder, and only where the file system has locks.

    Args: device: `cpu` or `cuda`
    """
    name = re.sub(r"[^A-Za-z0-9.-]", "_", f"{device}-{socket.gethostname()}")
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = open_own(folder / f"timing-{name}.lock", os.O_RDWR | os.O_CREAT)
    except OSError:  # no cache folder, no lock: a timing says itself when it was disturbed
        yield
        return
    try:
        acquire(descriptor)
        yield
    finally:
        os.close(descriptor)
