"""timm's models as the truth about numbers, made so that a comparison says something.

With the weights a model starts with, the logits hardly depend on the image (a standard deviation over images of 1e-4 of
the largest logit), so a broken network would pass. `telling` gives every tensor weights that let the image through, and
`images` are images that differ in more than noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def reference(timm: ModuleType, name: str, **options: Any) -> nn.Module:
    """A model of timm in eval mode, with telling weights. Swin's arguments `window_size` and `img_size` go through."""
    if name.startswith("convnext"):
        made = timm.create_model(name, **options)
    else:
        with no_initialisation():
            made = timm.create_model(name, weight_init="skip", **options)
    return telling(made).eval()


def without_shift(model: nn.Module) -> nn.Module:
    """Swin -> Swin-Free, which has the same weights: no block shifts its windows."""
    for stage in model.layers:
        for block in stage.blocks:
            block.shift_size = (0, 0)
            block.attn_mask = None
    return model


@torch.no_grad()
def telling(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights under which every tensor matters: no bias, norm, position table or layer scale is nearly neutral."""
    numbers = torch.Generator().manual_seed(seed)
    statistics = [(name, buffer) for name, buffer in model.named_buffers() if ".running_" in name]
    for name, tensor in [*model.named_parameters(), *statistics]:
        last = name.rpartition(".")[2]
        if last == "gamma":
            tensor.uniform_(0.5, 1, generator=numbers)
        elif last == "running_var":
            tensor.uniform_(0.5, 2, generator=numbers)
        elif last == "bias":
            tensor.normal_(0, 0.1, generator=numbers)
        elif tensor.ndim == 1:
            tensor.normal_(0 if last == "running_mean" else 1, 0.2, generator=numbers)
        elif last in ("relative_position_bias_table", "attention_biases", "offset_bias", "cls_token", "pos_embed"):
            tensor.normal_(0, 1, generator=numbers)
        else:
            tensor.normal_(0, prod(tensor.shape[1:]) ** -0.5, generator=numbers)
    return model


def images(count: int, height: int, width: int | None = None, seed: int = 1) -> Tensor:
    """Random images with a colour, large shapes and noise: [count, 3, height, width]."""
    numbers = torch.Generator().manual_seed(seed)
    size = (height, width or height)
    colour = torch.randn(count, 3, 1, 1, generator=numbers)
    shapes = torch.randn(count, 3, 5, 5, generator=numbers)
    noise = torch.randn(count, 3, *size, generator=numbers)
    return colour + nn.functional.interpolate(shapes, size, mode="bilinear") + 0.5 * noise


@contextmanager
def no_initialisation() -> Iterator[None]:
    """Linears and convolutions are made without drawing weights that `telling` draws again."""
    kinds = (nn.Linear, nn.Conv2d)
    before = [kind.reset_parameters for kind in kinds]
    try:
        for kind in kinds:
            kind.reset_parameters = lambda self: None  # type: ignore[method-assign]
        yield
    finally:
        for kind, reset in zip(kinds, before, strict=True):
            kind.reset_parameters = reset  # type: ignore[method-assign]
