"""Normalisations: LayerNorm over C, BatchNorm per channel, and BatchNorm per token position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archdsl.errors import RuleBroken
from archdsl.ir.op import ONES, ZEROS, Op, ParamSpec, need_channels, need_tokens
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class LayerNorm(Op):
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and variance over the C numbers of one token.

    Shapes: [..., C] -> the same
    Source: arXiv 1607.06450; torch.nn.LayerNorm
    """

    order_rule = "tokenwise"

    dim: int
    eps: float = 1e-5

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("LayerNorm", x)
        need_channels("LayerNorm", x, self.dim)
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"weight": ParamSpec((self.dim,), ONES), "bias": ParamSpec((self.dim,), ZEROS)}


def _batch_norm_tensors(num_features: int) -> Mapping[str, ParamSpec]:
    return {
        "weight": ParamSpec((num_features,), ONES),
        "bias": ParamSpec((num_features,), ZEROS),
        "running_mean": ParamSpec((num_features,), ZEROS, learnable=False),
        "running_var": ParamSpec((num_features,), ONES, learnable=False),
    }


@dataclass(frozen=True)
class BatchNorm(Op):
    """Normalise each channel over the batch and all positions; at inference by running statistics.

    Shapes: [..., C] -> the same
    Source: arXiv 1502.03167; torch.nn.BatchNorm1d on [B * N, C]
    """

    order_rule = "tokenwise"

    dim: int
    eps: float = 1e-5
    momentum: float = 0.1

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("BatchNorm", x)
        need_channels("BatchNorm", x, self.dim)
        if x.order is not None and x.order.padded:
            raise RuleBroken(f"BatchNorm over padded tokens would count the padding: {x}")
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        return _batch_norm_tensors(self.dim)


@dataclass(frozen=True)
class TokenBatchNorm(Op):
    """Normalise each token position over the batch and all channels.

    This is what `nn.BatchNorm1d(H * W)` does to `[B, H * W, C]`, as in Swin-Free's released BR code; its weights fix
    the size of the map, and their order is raster order.

    Shapes: [N, C] -> the same
    """

    num_tokens: int
    eps: float = 1e-5
    momentum: float = 0.1

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if not isinstance(x.order, Raster) or x.order.num_slots != self.num_tokens:
            raise RuleBroken(f"TokenBatchNorm needs {self.num_tokens} tokens in raster order, but got {x}")
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        return _batch_norm_tensors(self.num_tokens)
