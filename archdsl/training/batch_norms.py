"""Batch norms whose statistics are those of the whole batch when several processes have a share of it each.

torch's own SyncBatchNorm runs on GPUs only and takes axis 1 for the channels; ours have them last as well.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize(model: nn.Module) -> nn.Module:
    """Replace each batch norm of `model`, in place; names, weights and statistics stay."""
    for name, module in list(model.named_modules()):
        if isinstance(module, _BatchNorm):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, SynchronizedNorm(module))
    return model


class Total(torch.autograd.Function):
    """The sum over all processes. Each of them uses it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:  # noqa: ARG004  # the signature that autograd calls
        total = numbers.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return Total.forward(ctx, gradient.contiguous())


class SynchronizedNorm(nn.Module):
    """A batch norm over all processes. Shapes: those of the norm that it replaces, channels last or on axis 1."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: _BatchNorm):
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        self.axis = 1 if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) else -1
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.ndim
        shape[self.axis] = -1
        others = [axis for axis in range(x.ndim) if axis != self.axis % x.ndim]
        if self.training:
            count = x.numel() // x.shape[self.axis]
            sums = torch.stack([x.float().sum(others), x.float().square().sum(others)])
            total: Tensor = Total.apply(sums)  # type: ignore[no-untyped-call]
            mean, square = (total / (count * dist.get_world_size())).unbind(0)
            variance = square - mean.square()
            self._keep(mean.detach(), variance.detach(), count * dist.get_world_size())
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        y: Tensor = x * scale.view(shape) + (self.bias - mean * scale).view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: int) -> None:
        self.num_batches_tracked += 1
        part = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), part)
