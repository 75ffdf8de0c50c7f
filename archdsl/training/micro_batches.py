"""Gradient accumulation: a batch goes through the network in micro-batches, as large as memory allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from archdsl.training.batch_norms import SynchronizedNorm
from archdsl.training.distillation import Answers, Distillation, judged
from archdsl.training.failures import explained_out_of_memory, explained_small_batches, training_error
from archdsl.training.memory import PROBE_FROM_PIXELS, images_that_fit, is_out_of_memory
from archdsl.training.mixed_precision import MixedPrecision
from archdsl.training.processes import Processes
from archdsl.training.reproducibility import RandomNumbers
from archdsl.training.tasks import Task


class MicroBatches:
    """Computes the gradients of a batch, and finds out how many images go through the network at once.

    Gradients are summed until the batch is complete, so only batch norms see a difference. On a CPU the first
    micro-batch is estimated from the free memory; anywhere, one that does not fit is halved. Several processes find a
    size that fits in all of them before any waits for another's gradients.

    distillation: the loss beside a teacher, in place of the task's
    model:     the network; with several processes its gradients are averaged over them
    optimizer: of its weights
    requested: images at once as the caller wants them; None: as many as fit. most: this process's share of a batch
    note:      called with a sentence when fewer images go through than requested

    size: images at once; None until the first batch has come
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimizer: torch.optim.Optimizer,
        precision: MixedPrecision,
        random: RandomNumbers,
        processes: Processes,
        *,
        requested: int | None,
        most: int,
        note: Callable[[str], None],
        distillation: Distillation | None = None,
    ):
        self.model, self.task, self.optimizer, self.precision = model, task, optimizer, precision
        self.random, self.processes, self.device, self._note = random, processes, random.device, note
        self.distillation = distillation
        self.requested = requested
        self.size = None if requested is None else min(requested, most)
        self._network: nn.Module = model
        if processes.num > 1:
            self._network = DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)
        self._rehearsed = processes.num == 1
        self._noted_output = False
        self._statistics = [
            buffer
            for module in model.modules()
            if hasattr(module, "running_mean")
            for buffer in module.buffers(recurse=False)
        ]

    def gradients(self, images: Tensor, targets: Tensor, *, check: bool) -> Tensor:
        """Set the weights' gradients to those of the mean loss over the images. -> that loss, a scalar

        Args:   images: [B, 3, H, W]; targets: as the task's `mix` gave them; check: have the task check the output
        Raises: TrainingError (`out-of-memory`) when a single image does not fit, and what the task's `check` raises
        """
        if self.size is None:
            self.size = self._first_size(images)
        if not self._rehearsed:
            self._rehearse(images, targets)
        while True:
            undo = self._undo()
            with explained_out_of_memory():
                try:
                    return self._accumulated(self._network, images, targets, check=check)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or self.processes.num > 1:
                        raise
            undo()
            self._halve(images)

    def state(self) -> dict[str, int | None]:
        """What `resume` needs, as fields of a training's state."""
        return {"micro_batch": self.size, "micro_batch_asked": self.requested}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on with the size of an earlier part of the training, unless another one is requested now."""
        if self.requested in (None, state.get("micro_batch_asked")):
            self.size, self.requested = state["micro_batch"], state.get("micro_batch_asked")
        self._noted_output = True

    def _accumulated(self, network: nn.Module, images: Tensor, targets: Tensor, *, check: bool) -> Tensor:
        assert self.size is not None
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        num_parts = math.ceil(len(images) / self.size)
        ends = [len(images) * number // num_parts for number in range(num_parts + 1)]  # alike: no rest of one image
        for start, end in pairwise(ends):
            part = images[start:end].to(self.device, non_blocking=True)
            wanted = targets[start:end].to(self.device)
            last = end == len(images) or not isinstance(network, DistributedDataParallel)
            with nullcontext() if last else network.no_sync():  # type: ignore[operator]
                with self.precision.autocast(), explained_small_batches(len(part)):
                    answers: Answers = network(part)
                    taught = self.distillation.answer(part) if self.distillation is not None else None
                if check and start == 0:
                    self._check(answers, taught)
                if self.distillation is not None and taught is not None:
                    loss = self.distillation.loss(answers, taught, wanted)
                else:
                    loss = self.task.loss(self.precision.full(judged(answers)), wanted)
                if num_parts > 1:
                    loss = loss * (len(part) / len(images))
                self.precision.backward(loss)
            total += loss.detach()
        return total

    def _check(self, answers: Answers, taught: Tensor | None) -> None:
        if self.distillation is not None and taught is not None:
            self.distillation.check(answers, taught)
        note = self.task.check(judged(answers))
        if note is not None and not self._noted_output:
            self._noted_output = True
            self._note(note)

    def _first_size(self, images: Tensor) -> int:
        """All images at once, on a GPU or where they are small; on a CPU, as many as fit in its free memory."""
        count, pixels = len(images), images[0, 0].numel() * len(images)
        if self.device.type != "cpu" or pixels < PROBE_FROM_PIXELS:
            return count
        undo = self._undo()
        with self.precision.autocast(), explained_small_batches(count):
            fitting = images_that_fit(self.model, images[0], count)
        undo()
        if fitting < count:
            self._note(
                f"{fitting} images at once and not {count}, so that they fit in memory; a step is as large as ever"
            )
        return fitting

    def _rehearse(self, images: Tensor, targets: Tensor) -> None:
        """Find the size that fits in all processes, by passes whose gradients are not exchanged."""
        self._rehearsed = True
        while True:
            undo, short = self._undo(), False
            if any(isinstance(module, SynchronizedNorm) for module in self.model.modules()):
                self.model.eval()  # these norms would wait for one another
            try:
                self._accumulated(self.model, images, targets, check=True)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                short = True
            self.model.train()
            undo()
            if not self.processes.any(short, self.device):
                return
            self._halve(images)

    def _halve(self, images: Tensor) -> None:
        assert self.size is not None
        if self.size == 1:
            message = f"a single image of {images.shape[-2]}x{images.shape[-1]} px does not fit in memory"
            raise training_error("out-of-memory", message, hint="use a smaller network, or a larger GPU")
        whole, self.size = self.size, (self.size + 1) // 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._note(f"{whole} images at once did not fit in memory: now {self.size}; a step is as large as ever")

    def _undo(self) -> Callable[[], None]:
        """A function that takes back what forward passes change from here on: random numbers and running statistics."""
        random, statistics = self.random.read(), [statistic.clone() for statistic in self._statistics]

        @torch.no_grad()
        def undo() -> None:
            self.random.write(random)
            for statistic, value in zip(self._statistics, statistics, strict=True):
                statistic.copy_(value)

        return undo
