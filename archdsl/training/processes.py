"""Several processes that train one network together, each on its share of every batch: torch.distributed.

`torchrun --nproc-per-node N -m archdsl train …` starts them; each finds its place in the environment. GPUs talk by
nccl, CPUs by gloo.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from archdsl.errors import ArchError, Place, Problem, TrainingError, at_argument

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long one process waits for the others, e.g. while they write a checkpoint or read a slow disk."""
_LOST = ("closed by peer", "reset by peer", "pair closure", "timed out waiting")  # gloo, when a process is gone


class Elsewhere(TrainingError):
    """Another process ended with these problems and tells them, so this one need not."""


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

    def each(self, ours: T, device: object) -> list[T]:
        """What each process gave: plain data, by rank, in each of them. device: where they talk, as in `gathered`"""
        import torch

        if self.num == 1:
            return [ours]
        data = torch.frombuffer(bytearray(pickle.dumps(ours)), dtype=torch.uint8)
        lengths = self.gathered(torch.tensor(len(data), device=str(device))).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = data
        found = self.gathered(padded.to(str(device))).cpu()
        return [pickle.loads(row[:length].numpy().tobytes()) for row, length in zip(found, lengths, strict=True)]

    @contextmanager
    def all_or_none(self, device: object) -> Iterator[None]:
        """What is in here fails in all processes when it fails in one: none waits for one that has ended.

        Errors: what failed here, or `Elsewhere` when it failed in others alone, or alike in one before this
        """
        try:
            yield
        except ArchError as error:
            if error.problems in self.each(error.problems, device)[: self.rank]:
                raise Elsewhere(error.problems) from None
            raise
        failed = [problems for problems in self.each((), device) if problems]
        if failed:
            raise Elsewhere(failed[0])

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
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(words in str(error).lower() for words in _LOST):
            raise
        message = f"the processes of this training have lost one another: {str(error).splitlines()[0][:200]}"
        hint = "where one has ended, its own message says why; --resume goes on after the last epoch"
        raise TrainingError(Problem(Place("training"), "worker-lost", message, hint)) from error
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
