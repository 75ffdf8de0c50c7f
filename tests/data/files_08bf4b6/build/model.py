"""tiny_swin in plain PyTorch.

Made by archdsl 0.1.0 from the spec `tiny_swin`, graph f0d7ff6d9a6b7b3c97c1c4855ff1fa91.

A new network has torch's random weights. Trained ones are loaded by archdsl's names:

    model = TinySwin()
    model.load_state_dict(safetensors.torch.load_file("model.safetensors"))  # or torch.load("model.pt")
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# B = batch, N = tokens, C = channels, H x W = the map


def to_tokens(x: Tensor) -> Tensor:
    """Planes [B, C, H, W] -> tokens [B, N, C], row by row."""
    return x.flatten(2).transpose(1, 2)


def window_partition(x: Tensor, size: int, window: int, shift: int) -> Tensor:
    """Tokens row by row, [B, N, C] -> [B * windows, places, C], the map first rolled."""
    x = x.unflatten(1, (size, size))
    x = x.roll((-shift, -shift), dims=(1, 2))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # [B, rows, window, columns, window, C]
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def window_reverse(x: Tensor, size: int, window: int, shift: int) -> Tensor:
    """[B * windows, places, C] -> tokens row by row, [B, N, C]: undo `window_partition`."""
    x = x.unflatten(0, (-1, size // window, size // window)).unflatten(3, (window, window))
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return x.roll((shift, shift), dims=(1, 2)).flatten(1, 2)


def shift_mask(size: int, window: int, shift: int) -> Tensor:
    """-100 where two places of a window show different sides of the image, else 0:
    [windows, 1, places, places].
    """

    def region(side: int, window: int, shift: int) -> Tensor:
        place = torch.arange(side)
        return (place >= side - window).int() + (place >= side - shift).int()

    y, x = region(size, window, shift), region(size, window, shift)
    part = (3 * y[:, None] + x).unflatten(1, (-1, window)).unflatten(0, (-1, window))
    part = part.transpose(1, 2).flatten(2).flatten(0, 1)[:, None]  # [windows, 1, places]
    return torch.where(part[..., None] == part[..., None, :], 0.0, -100.0)


def relative_position_index(window: int) -> Tensor:
    """The row of the bias table for each pair of places of a window: [places, places]."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for each head: [B, N, C] -> [B, N, C]."""
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # [B, heads, N, d]
    if bias is not None and bias.shape[0] > 1:  # one for each window: the same for every image
        bias = bias.repeat(len(q) // len(bias), 1, 1, 1)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return x.transpose(1, 2).flatten(2)


class PatchStem(nn.Module):
    """Cut the image into patches and map each to a token: a convolution whose stride is its kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 8, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.proj(x)))


class WindowAttention(nn.Module):
    """Self-attention within windows: [B, N, C] -> [B, N, C]."""

    relative_position_index: Tensor
    mask: Tensor | None

    def __init__(self, dim: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.size, self.window, self.shift = heads, size, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.02)
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.register_buffer("mask", shift_mask(size, window, shift) if shift else None, persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(window_partition(x, self.size, self.window, self.shift)).chunk(3, dim=-1)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if self.mask is not None:
            bias = bias + self.mask
        return window_reverse(self.proj(attend(q, k, v, self.heads, bias)), self.size, self.window, self.shift)


class Mlp(nn.Module):
    """Linear, gelu, Linear: [B, N, C] -> [B, N, C]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """x += attention(norm(x)) within windows; x += mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, size, window, shift)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Classifier(nn.Module):
    """Norm, one vector for the image, one linear layer: logits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x).mean(1))


class Stage(nn.Module):
    """Blocks, one after the other."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class TinySwin(nn.Module):
    """tiny_swin: image [B, 3, 16, 16] -> logits [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = PatchStem()
        self.stages = nn.Sequential(
            Stage(blocks=[SwinBlock(dim=8, heads=2, size=4, window=2, shift=1 * (i % 2)) for i in range(2)])
        )
        self.head = Classifier()

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(image)))
