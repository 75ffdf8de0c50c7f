"""How much memory loading and running a network takes, beyond what the idle worker holds.

On a CPU it is the high-water mark of the process's resident memory, which Linux lets a process set back to what it
holds now. What freed networks left to the allocator is given back first, and the runtime's library is imported before:
neither is counted. On a GPU it is what the network's tensors took at most, where they are PyTorch's, else what the
process holds of the GPU's memory after the first runs.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from archdsl.telemetry.gpu import gpu_memory_bytes

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"

Meter = Callable[[], int | None]
"""Called at the end: the peak in bytes since it was made; None when it cannot be read."""


def memory_meter(device: str, *, torch_tensors: bool) -> Meter:
    """Begin to record the peak memory of this process, or of the GPU that it uses.

    torch_tensors: the networks' tensors are PyTorch's
    """
    if device == "cpu":
        return _resident_meter()
    return _torch_meter() if torch_tensors else _gpu_meter()


def _resident_meter() -> Meter:
    _give_back()
    with suppress(OSError):  # where it may not be set back, the mark is that of the process's life
        _CLEAR.write_text(RESET_PEAK, encoding="ascii")
    held, mark = _status_bytes("VmRSS"), _status_bytes("VmHWM")

    def used() -> int | None:
        now = _status_bytes("VmHWM")
        if now is None or held is None or mark is None or (now == mark and mark - held > NEAR_BYTES):
            return None  # also below the mark of earlier work, where nothing can be seen
        return max(0, now - held)

    return used


NEAR_BYTES = 8 << 20
"""A mark that was set back is that near to what is held: the two are not read in the same moment."""


def _torch_meter() -> Meter:
    import torch

    if not torch.cuda.is_available():
        return lambda: None
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    return lambda: max(0, torch.cuda.max_memory_allocated() - held)


def _gpu_meter() -> Meter:
    with suppress(Exception):  # without a GPU loading fails, and says why
        import torch

        torch.zeros(1, device="cuda")  # makes the context that all libraries share, which is not the network's
    held = gpu_memory_bytes() or 0

    def used() -> int | None:
        now = gpu_memory_bytes()
        return None if now is None else max(0, now - held)

    return used


def _give_back() -> None:
    """Free what nothing refers to, and hand free pages back to the system (glibc keeps them)."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _status_bytes(field: str) -> int | None:
    """A field of /proc/self/status in bytes; None where the system has none."""
    try:
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
