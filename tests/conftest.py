"""What tests of several files share: reference libraries that load on every machine."""

from __future__ import annotations

import ctypes
import gc
import ipaddress
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def refuse_public_addresses(connect: Callable[..., Any]) -> Callable[..., Any]:
    """No test needs the network: a connection from its process to a public address fails."""

    def checked(self: socket.socket, address: object) -> Any:
        if isinstance(address, tuple):
            with suppress(ValueError):  # a name: what it resolves to is connected to by its address
                if ipaddress.ip_address(str(address[0]).split("%")[0]).is_global:
                    raise PermissionError(f"a test connects to {address[0]}")
        return connect(self, address)

    return checked


socket.socket.connect = refuse_public_addresses(socket.socket.connect)  # type: ignore[method-assign]

MUCH_MEMORY_MIB = 1500
"""Beyond this, what a test left behind is collected before the next begins."""


@pytest.fixture(autouse=True)
def modest() -> Iterator[None]:
    """Graph modules are cycles: their weights stay until Python collects, which it does by number, not by size. Without
    this, a process that runs many tests grows by several GiB.
    """
    yield
    if _resident_mib() > MUCH_MEMORY_MIB:
        gc.collect()
        if hasattr(_libc, "malloc_trim"):
            _libc.malloc_trim(0)


_libc = ctypes.CDLL(None)


def _resident_mib() -> float:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20 if statm.exists() else 0.0


def load_torchvision() -> None:
    """Import torchvision, also where its compiled part does not fit this torch.

    The wheel on PyPI is built for CUDA; beside a torch for CPUs `import torchvision` dies on a missing operator, and
    timm and transformers with it. With the two schemas that it asks for it loads, without its compiled operators.
    """
    import torch

    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # the schemas live as long as the library
        import_module("torchvision")


_kept: list[object] = []


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The reference for numbers."""
    load_torchvision()
    import timm

    return timm


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The reference for Hugging Face's names."""
    load_torchvision()
    return pytest.importorskip("transformers")
