"""The identity of a process, and whether the process still runs: so that trials of dead workers are requeued."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """This process: host, process id, start time (ids are reused), and the namespace of its id."""
    started, _ = _started_and_state(os.getpid())
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started, "ids": _namespace()}


def is_gone(other: Any) -> bool:
    """Whether the process that `this_process` described has certainly ended.

    A process of another host, or of another container, counts as running: only its own system can tell.
    """
    if not isinstance(other, Mapping) or not isinstance(other.get("pid"), int):
        return True
    if not is_here(other):
        return False
    pid: int = other["pid"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it runs, but is not ours
    return _started_and_state(pid)[0] != other.get("started")


def is_here(other: Mapping[str, Any]) -> bool:
    """Whether the process that `this_process` described is one of this system, so that it can be checked.

    Machines may share a name and process ids, but not the id of their boot.
    """
    there, here = str(other.get("started") or ""), _started_and_state(os.getpid())[0] or ""
    is_boot = not there or not here or there.partition(":")[0] == here.partition(":")[0]
    return is_boot and other.get("host") == socket.gethostname() and other.get("ids", _namespace()) == _namespace()


def is_stopped(other: Mapping[str, Any]) -> bool:
    """Whether a process of this system is halted (SIGSTOP, a debugger); it may continue at any time."""
    return _started_and_state(other["pid"])[1] in ("T", "t")


def _started_and_state(pid: int) -> tuple[str | None, str | None]:
    """When a process started, in the system's units since boot, and its state; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None, None
    state, *rest = stat.rpartition(")")[2].split()
    return (None if state == "Z" else f"{boot}:{rest[18]}"), state


def _namespace() -> str | None:
    """The namespace of this process's id: two containers may share a host name, but not this."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
