"""The stack on which this thread's signal handlers run, kept while a native library sets up its own."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """After the block, signal handlers of this thread run on the stack on which they ran before it.

    OpenVINO's plug-in for CPUs puts a stack of its own in the place of the interpreter's when it is loaded, and frees
    it when it is unloaded, maybe in another thread: the next signal with a handler, such as the end of a process of
    PyTorch's DataLoader, then kills this process (seen with OpenVINO 2026.4). Elsewhere than on Linux nothing is done.
    """
    if sys.platform != "linux":
        yield
        return
    set_stack, before = ctypes.CDLL(None, use_errno=True).sigaltstack, _SignalStack()
    known = set_stack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            set_stack(ctypes.byref(before), None)
