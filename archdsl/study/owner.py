"""Which process runs a trial, so that a trial of a dead one is taken up again."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any


def owner() -> dict[str, Any]:
    """This process: host, process id, and when the process started (ids are used again)."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_gone(other: Any) -> bool:
    """Whether the process that `owner` described certainly does not run any more.

    A process of another host counts as running: only the host itself can tell.
    """
    if not isinstance(other, dict) or not isinstance(other.get("pid"), int):
        return True
    if other.get("host") != socket.gethostname():
        return False
    pid: int = other["pid"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it runs, but is not ours
    return _started(pid) != other.get("started")


def _started(pid: int) -> str | None:
    """The start time of a process in the system's own units, since boot; None where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else f"{boot}:{rest[18]}"
