"""One time at a time on one device: workers of one machine wait for each other, so that none spoils another's times."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator

from archdsl.study.storage.turns import locked
from archdsl.writing import cache_folder

_PAUSE_S = 0.02


@contextlib.contextmanager
def device_turn(device: str) -> Iterator[None]:
    """Wait until no other process takes a time on this device (`cpu`, `cuda`), and keep others waiting meanwhile.

    A file in the cache folder is locked; the lock ends with the process, however that ends. Only processes that have
    the same cache folder wait for each other, and only where the file system has locks.
    """
    name = re.sub(r"[^A-Za-z0-9.-]", "_", f"{device}-{socket.gethostname()}")
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"timing-{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # no cache folder, no lock: times are still taken, and say when they were disturbed
        yield
        return
    try:
        while locked(descriptor) is False:
            time.sleep(_PAUSE_S)  # here a signal may break in
        yield
    finally:
        os.close(descriptor)
