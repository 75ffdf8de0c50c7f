"""Several processes that train one network together, each on its share of every batch: torch.distributed.

`torchrun --nproc-per-node N -m archdsl train …` starts them and writes each one's rank into its environment. GPUs
exchange tensors by nccl, CPUs by gloo.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from archdsl.errors import ArchError, TrainingError
from archdsl.training.failures import training_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long one process waits for the others, e.g. while they write a checkpoint or read a slow disk."""
_LOST = ("closed by peer", "reset by peer", "pair closure", "timed out waiting")  # gloo, when a process is gone


class Elsewhere(TrainingError):
    """Another process ended with these problems and reports them, so this one need not."""


@dataclass(frozen=True)
class Processes:
    """This process's place among those of one training.

    rank:  0 … num - 1; the process of rank 0 writes files and prints
    num:   how many there are
    local: the rank on this machine, which is the number of its GPU
    """

    rank: int = 0
    num: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """(rank, num), as `Data` takes it."""
        return self.rank, self.num

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.num > 1:
            import torch.distributed as dist

            dist.all_reduce(numbers)
            _exchanged.append(numbers)
        return numbers

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the first process, in each of the others."""
        if self.num > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def exchange_device(self, device: torch.device) -> torch.device | str:
        """Where tensors must be for the processes to exchange them: nccl moves only what is on a GPU."""
        return device if self.num > 1 else "cpu"

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
        _exchanged.extend((ours, *found))
        return torch.stack(found)

    def each(self, ours: T, device: object) -> list[T]:
        """What each process gave: plain data, by rank, in each of them. device: where tensors can be exchanged"""
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
        """The block fails in all processes when it fails in one, so that none waits for one that has ended.

        Raises: what failed here, or `Elsewhere` when it failed in others only, or alike in a process of lower rank
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


ALONE = Processes()

_exchanged: deque[Tensor] = deque(maxlen=64)
"""The tensors of the last exchanges. A thread of gloo lets go of them a moment after an exchange is over. If it were
the last to hold one that Python has made, it would need the interpreter's lock for that, and a thread that asks for it
while the interpreter ends takes the process down (SIGABRT: "terminate called without an active exception")."""


def in_environment() -> Processes:
    """The place that torchrun wrote into the environment; `ALONE` without it."""
    try:
        num = int(os.environ.get("WORLD_SIZE", "1"))
        if num <= 1:
            return ALONE
        return Processes(int(os.environ["RANK"]), num, int(os.environ.get("LOCAL_RANK", "0")))
    except (KeyError, ValueError):
        message = "WORLD_SIZE says that several processes train, but RANK does not say which this is"
        hint = "start them with torchrun --nproc-per-node N -m archdsl train …"
        given = os.environ.get("WORLD_SIZE", "")
        raise TrainingError.at("WORLD_SIZE", given, "environment", message, hint) from None


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """This process is in the group of all in the block. device: `cuda…` or `cpu`

    Raises: TrainingError (`worker-lost`) when another process has ended
    """
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
        raise training_error("worker-lost", message, hint=hint) from error
    finally:
        dist.destroy_process_group()


def share_of(batch: int, share: tuple[int, int]) -> list[int]:
    """The places of a batch that are this process's: equally many for all, and with i also -1 - i where possible.

    Mixup and CutMix mix image i with image -1 - i. With both in one process, several processes mix as one would.
    """
    rank, num = share
    each = batch // num
    if each % 2:
        return list(range(rank * each, (rank + 1) * each))
    half = each // 2
    front = list(range(rank * half, (rank + 1) * half))
    return [*front, *(batch - 1 - place for place in reversed(front))]
