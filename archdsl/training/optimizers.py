"""What a recipe does to the weights: how they are drawn, what optimises them, and which of them decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from archdsl.training.recipe import Recipe
from archdsl.training.timm_parts import load_timm

TABLE_STD = 3.0
TABLE = "relative_position_bias_table"

NO_DECAY = ("relative_position_bias_table", "offset_bias", "pos_embed", "cls_token", "dist_token", "logit_scale")
"""Last parts of the names of weights that get no weight decay, beside everything with fewer than two axes."""


@torch.no_grad()
def redraw_fan_in(model: nn.Module, *, seed: int) -> None:
    """Draw every linear and convolution weight from N(0, 1 / inputs of one output), position tables from N(0, 9).

    Vision transformers start linear weights and tables at a standard deviation of 0.02, which suits widths from about
    400 to 2500. In a network 32 wide it makes every block nearly the identity, and no direction is preferred by any
    table: it then takes most of a short training to leave that plateau. Norms, biases and embeddings stay as built.
    """
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        last = name.rpartition(".")[2]
        if last == TABLE:
            weight.copy_(torch.randn(weight.shape, generator=draw) * TABLE_STD)
        elif last == "weight" and weight.ndim >= 2:
            weight.copy_(torch.randn(weight.shape, generator=draw) * weight[0].numel() ** -0.5)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW from torch, any other from timm. Errors: TrainingError where timm is needed and does not load"""
    groups = decay_groups(model, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
    options: dict[str, Any] = {"momentum": recipe.momentum}
    if recipe.optimizer == "nadamw":
        options["betas"] = recipe.betas
    optim = load_timm("optim", ["optimizer"])
    found: torch.optim.Optimizer = optim.create_optimizer_v2(groups, opt=recipe.optimizer, lr=recipe.lr, **options)
    return found


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All trainable weights in two groups: with weight decay, and without (see NO_DECAY)."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            spare = weight.ndim < 2 or name.rpartition(".")[2] in NO_DECAY
            (spared if spare else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
