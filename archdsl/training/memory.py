"""How many images fit in memory at once."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

PROBE_FROM_PIXELS = 2**21
"""Batches with fewer pixels are not probed on a CPU: 2048 images of 32x32, or 41 of 224x224."""

MOST_OF_MEMORY = 0.5
"""What activations may take of the memory that is free: gradients, moments and other processes need some too."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that an allocation failed, on a GPU or on a CPU."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)


def images_that_fit(model: nn.Module, image: Tensor, batch: int, free_bytes: int | None = None) -> int:
    """How many images [3, H, W] like `image` a CPU can train on at once: `batch`, or half of it, … that fits.

    Linux grants more memory than there is and later kills the process, so the size is predicted: from the bytes that
    the forward pass keeps for the backward pass for one image more. The caller restores the model's random numbers and
    running statistics.
    """
    free = free_memory_bytes() if free_bytes is None else free_bytes
    if free is None:
        return batch
    some, more = (_kept_bytes(model, image.unsqueeze(0).expand(count, -1, -1, -1).clone()) for count in (2, 3))
    fitting = max(1, int(free * MOST_OF_MEMORY) // max(1, more - some))  # of one image a batch norm can learn nothing
    while batch > fitting and batch > 1:
        batch = (batch + 1) // 2
    return batch


def free_memory_bytes() -> int | None:
    """What this process may still allocate: the machine's free memory, or what its group has left. None: unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
            found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        if limit != "max":
            found.append(max(0, int(limit) - used))
    except (OSError, ValueError):
        pass
    return min(found) if found else None


def _kept_bytes(model: nn.Module, images: Tensor) -> int:
    """What a forward pass keeps for the backward pass, each piece of memory once, without the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in weights:
            kept[memory.data_ptr()] = memory.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    return sum(kept.values())
