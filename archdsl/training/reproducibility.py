"""The same numbers each time: torch's random generators, deterministic kernels, and the number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

RandomState = tuple[Tensor, Tensor | None]
"""The state of torch's generator on the CPU, and of that on the GPU where the training runs on one."""


class RandomNumbers:
    """Torch's global random generators, as far as a training on `device` draws from them."""

    def __init__(self, device: torch.device):
        self.device = device

    def read(self) -> RandomState:
        """A copy of the generators' states."""
        on_device = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return torch.get_rng_state(), on_device

    def write(self, state: RandomState) -> None:
        """Set the generators to a state that `read` gave."""
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self.device)

    @contextmanager
    def continued(self, state: RandomState) -> Iterator[None]:
        """Random numbers go on from `state` in the block; afterwards the caller has its own generators back."""
        with self._forked():
            self.write(state)
            yield

    def seeded(self, seed: int) -> RandomState:
        """The state after `torch.manual_seed(seed)`. The generators are left as they are."""
        with self._forked():
            torch.manual_seed(seed)
            return self.read()

    def _forked(self) -> Any:
        return torch.random.fork_rng(devices=[self.device.index or 0] if self.device.type == "cuda" else [])


@contextmanager
def deterministic() -> Iterator[None]:
    """Only kernels that give the same numbers each time, where torch has them; it warns where it has not."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def torch_threads(num_threads: int | None) -> Iterator[None]:
    """torch computes on so many CPU threads in the block, on which the order of its sums depends. None: unchanged"""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
