"""Functions and modules that the torch backend's graphs call and that torch does not have in one piece.

All are made of plain torch operations, so that graphs train, compile and export.
"""

# B = batch, W = windows, H = heads, N = tokens of a window, C = channels

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, heads: int, windows: int, scale: float) -> Tensor:
    """Attention within windows: q, k, v are [B, W * N, C]; bias is [1 or W, H, N, N] or None; -> [B, W * N, C].

    Two ways, chosen by measurement (torch 2.13, fp32, one CPU core, windows of 49 and 196 tokens, batch 1 and 8):
    without gradients torch's fused attention takes 0.6 to 0.9 of the explicit products' time (1.3 for one 7x7 window at
    batch 1); when a CPU records gradients, the explicit products take 0.6 to 0.9 of the fused attention's.
    """
    q_BWHNd, k_BWHNd, v_BWHNd = (_heads(x, heads, windows) for x in (q, k, v))
    if q.requires_grad and q.device.type == "cpu":
        logits_BWHNN = q_BWHNd @ k_BWHNd.transpose(-2, -1)
        logits_BWHNN = logits_BWHNN * scale if bias is None else torch.add(bias, logits_BWHNN, alpha=scale)
        mixed_BWHNd = logits_BWHNN.softmax(-1) @ v_BWHNd
    else:
        if bias is not None and bias.shape[0] > 1:  # a bias of its own for each window: repeat it over the batch
            bias = bias.expand(q.shape[0], *bias.shape).flatten(0, 1)
        flat_q, flat_k, flat_v = (x.flatten(0, 1) for x in (q_BWHNd, k_BWHNd, v_BWHNd))
        mixed = F.scaled_dot_product_attention(flat_q, flat_k, flat_v, attn_mask=bias, scale=scale)
        mixed_BWHNd = mixed.view(q.shape[0], windows, *mixed.shape[1:])
    return mixed_BWHNd.transpose(2, 3).flatten(3).flatten(1, 2)


def average(x: Tensor, y: Tensor) -> Tensor:
    """(x + y) / 2, of two tensors of one shape."""
    return (x + y) / 2


def _heads(x: Tensor, heads: int, windows: int) -> Tensor:
    """[B, W * N, C] -> [B, W, H, N, C / H], a view where memory allows."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, windows, tokens // windows, heads, channels // heads).transpose(2, 3)


def turned(x: Tensor, windows: int, *, windows_last: bool) -> Tensor:
    """Tokens of windows [B, W * N, C] with the windows outermost, given the places so, or the other way round.

    windows_last: whether `x` has the places outermost
    """
    batch, tokens, channels = x.shape
    outer = (tokens // windows, windows) if windows_last else (windows, tokens // windows)
    return x.reshape(batch, *outer, channels).transpose(1, 2).flatten(1, 2)


def position_bias(table: Tensor, rows: Tensor) -> Tensor:
    """The relative position table [R, H], spread to all pairs of places by `rows` [N, N]: -> [1, H, N, N].

    Gathering head by head from the turned table takes 0.3 to 0.5 of the time of `table[rows].permute(2, 0, 1)`, and
    its result is contiguous.
    """
    return table.t().contiguous().index_select(1, rows.flatten()).view(1, -1, *rows.shape)


def offset_bias(table: Tensor, columns: Tensor) -> Tensor:
    """The table by distance [H, D], spread to all pairs of places by `columns` [N, M]: -> [1, H, N, M]."""
    return table.index_select(1, columns.flatten()).view(1, -1, *columns.shape)


def continuous_position_bias(
    offsets: Tensor, weight: Tensor, bias: Tensor, out: Tensor, rows: Tensor, most: float
) -> Tensor:
    """most * sigmoid(out relu(weight offset + bias)), spread to all pairs of places by `rows` [N, N]: [1, H, N, N].

    offsets: [R, 2]
    """
    table_RH = F.linear(F.linear(offsets, weight, bias).relu(), out)
    return position_bias(most * table_RH.sigmoid(), rows)


def head_norm(
    x: Tensor, heads: int, eps: float, log_scale: Tensor | None = None, most_log_scale: float = 0.0
) -> Tensor:
    """Each head of [..., heads * d] divided by its length, and multiplied by exp(log_scale) [heads, 1, 1], if any."""
    y_Hd = F.normalize(x.reshape(*x.shape[:-1], heads, -1), dim=-1, eps=eps)
    if log_scale is not None:
        y_Hd = y_Hd * log_scale.clamp(max=most_log_scale).exp().squeeze(-1)
    return y_Hd.flatten(-2)


def unfold(x: Tensor, size: tuple[int, int], kernel: int, stride: int, padding: int) -> Tensor:
    """Each neighbourhood of a map, tokens [B, H * W, C] of `size`, as one token: -> [B, N, C * kernel^2]."""
    planes = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)
    return F.unfold(planes, kernel, padding=padding, stride=stride).transpose(1, 2)


def positive_features(x: Tensor, w: Tensor, parts: int) -> Tensor:
    """exp(w x - |x|^2 / 2) / sqrt(m) for each part of the channels: [..., parts * d], w [m, d] -> [..., parts * m]."""
    x_Pd = x.reshape(*x.shape[:-1], parts, w.shape[1])
    y_Pm: Tensor = (F.linear(x_Pd, w) - x_Pd.square().sum(-1, keepdim=True) / 2).exp() / w.shape[0] ** 0.5
    return y_Pm.flatten(-2)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
    """q (k^T v) / (q (k^T 1) + eps): [B, N, m], [B, N, m], [B, N, C] -> [B, N, C]."""
    k_BmN = k.transpose(1, 2)
    return q @ (k_BmN @ v) / (q @ k_BmN.sum(2, keepdim=True) + eps)


def take(x: Tensor, slots: Tensor) -> Tensor:
    """Tokens [B, N, C] in another order: slot i of the result is token slots[i].

    One gather beats roll + view + permute in every case that was measured (2 CPU cores, torch 2.13, fp32): 0.1 to 0.25
    of their time forward, 0.4 to 0.8 with backward. Against a bare window partition by view + permute it takes 0.35 to
    0.75 forward, and 0.9 to 2.3 with backward.
    """
    return x.index_select(1, slots)


def take_padded(x: Tensor, slots: Tensor) -> Tensor:
    """Like `take`; the slot -1 is a token of zeros."""
    return F.pad(x, (0, 0, 0, 1)).index_select(1, slots)


def prepend(token: Tensor, x: Tensor) -> Tensor:
    """Put one token [1, 1, C] before the tokens [B, N, C] of each image."""
    return torch.cat([token.expand(x.shape[0], -1, -1), x], dim=1)


class StochasticDepth(nn.Module):
    """In training, zero whole images of a branch with probability `rate` and scale up the others."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, …] -> the same"""
        if not self.training:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class ChannelBatchNorm(nn.BatchNorm1d):
    """Batch norm over the last axis: [..., C], statistics per channel over all else."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., C] -> the same"""
        if input.ndim == 2:
            return super().forward(input)
        return super().forward(input.flatten(0, -2)).view(input.shape)


class FixedTensor(nn.Module):
    """A tensor that is neither learnt nor saved: it moves with the module, and the state dict does not know it."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> Tensor:
        """-> the tensor"""
        return self.value

    def extra_repr(self) -> str:
        return f"{self.value.dtype}{list(self.value.shape)}"
