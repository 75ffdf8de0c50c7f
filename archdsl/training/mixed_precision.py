"""Mixed precision: the number format of the forward pass, and the scaling of the loss that float16 needs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from archdsl.training.failures import explained_out_of_memory
from archdsl.training.recipe import Amp


class MixedPrecision:
    """How a step computes: in `dtype` inside `autocast`, or in float32 throughout where that is None.

    scaler: keeps float16 gradients from underflowing (https://arxiv.org/abs/1710.03740); None for other formats
    """

    def __init__(self, amp: Amp, device: torch.device):
        self.device = device
        self.dtype = _dtype(amp, device)
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype == torch.float16 else None

    def autocast(self) -> Any:
        """The context in which the network and nothing else runs."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, dtype=self.dtype)

    def full(self, output: Tensor) -> Tensor:
        """The network's output as the loss takes it: float32 where it came in half precision."""
        return output if self.dtype is None else output.float()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled where the format needs it."""
        scaled = self.scaler.scale(loss) if self.scaler is not None else loss
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, model: nn.Module, clip_grad: float | None) -> None:
        """Unscale and clip the gradients, then change the weights.

        Args:   clip_grad: the largest norm of all gradients together; None: no limit
        Raises: TrainingError (`out-of-memory`)
        """
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        if clip_grad is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
        with explained_out_of_memory():
            if self.scaler is not None:
                self.scaler.step(optimizer)
                self.scaler.update()
            else:
                optimizer.step()


def _dtype(amp: Amp, device: torch.device) -> torch.dtype | None:
    match amp:
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
        case "auto" if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        case _:
            return None
