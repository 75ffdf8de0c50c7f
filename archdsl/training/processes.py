"""Several processes that train one network together, each on its share of every batch: torch.distributed.

`torchrun --nproc-per-node N -m archdsl train …` starts them; each finds its place in the environment. GPUs talk by
nccl, CPUs by gloo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from archdsl.errors import Problem, TrainingError, at_argument

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(minutes=30)
"""How long one process waits for the others, e.g. while they write a checkpoint or read a slow disk."""


@dataclass(frozen=True)
class Processes:
    """Our place among them. rank: 0 … num - 1; 0 writes and prints. local: the rank on this machine, its GPU's."""

    rank: int = 0
    num: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.num

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.num > 1:
            import torch.distributed as dist

            dist.all_reduce(numbers)
        return numbers

    def any(self, ours: bool, device: object) -> bool:
        """Whether it is so in any process."""
        import torch

        return bool(self.total(torch.tensor([float(ours)], device=str(device))) > 0)

    def gathered(self, ours: Tensor) -> Tensor:
        """[…] of each process -> [num, …] in each of them."""
        import torch

        if self.num == 1:
            return ours.unsqueeze(0)
        import torch.distributed as dist

        found = [torch.empty_like(ours) for _ in range(self.num)]
        dist.all_gather(found, ours)
        return torch.stack(found)

    def wait(self) -> None:
        """Until all are here."""
        if self.num > 1:
            import torch.distributed as dist

            dist.barrier()


ALONE = Processes()


def in_environment() -> Processes:
    """Our place as torchrun put it in the environment; `ALONE` without it."""
    try:
        num = int(os.environ.get("WORLD_SIZE", "1"))
        if num <= 1:
            return ALONE
        return Processes(int(os.environ["RANK"]), num, int(os.environ.get("LOCAL_RANK", "0")))
    except (KeyError, ValueError):
        message = "WORLD_SIZE says that several processes train, but RANK does not say which this is"
        hint = "start them with torchrun --nproc-per-node N -m archdsl train …"
        place = at_argument("WORLD_SIZE", os.environ.get("WORLD_SIZE", ""))
        raise TrainingError(Problem(place, "environment", message, hint)) from None


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Find the others, work together, part. device: `cuda…` or `cpu`"""
    ours = in_environment()
    if ours.num == 1:
        yield ours
        return
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield ours
    finally:
        dist.destroy_process_group()


def share_of(batch: int, share: tuple[int, int]) -> list[int]:
    """Which places of a batch are ours: equally many for all, and with a place its mirror image where that goes.

    Mixing mixes image i with image -1 - i. With both in one process, several processes mix as one would.
    """
    rank, num = share
    each = batch // num
    if each % 2:
        return list(range(rank * each, (rank + 1) * each))
    half = each // 2
    front = list(range(rank * half, (rank + 1) * half))
    return [*front, *(batch - 1 - place for place in reversed(front))]
