"""Normalisations: LayerNorm over C, BatchNorm per channel or token position, and what is left of one at inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archdsl.errors import RuleBroken
from archdsl.ir.op import ONES, ZEROS, ByChannel, Init, Op, ParamSpec, PerChannel, need_tokens
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class LayerNorm(PerChannel):
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and variance over the C numbers of one token.

    start: what the weight starts at; 0 makes a branch of a residual start as nothing
    affine: whether there are a weight and a bias; deploying moves them into the next linear

    Shapes: [..., C] -> the same
    Source: arXiv 1607.06450; torch.nn.LayerNorm
    """

    identity = "LayerNorm(dim, eps, affine)"
    kind = "norm"
    fp32_island = True

    eps: float = 1e-5
    affine: bool = True
    start: float = 1.0

    def tensors(self) -> Mapping[str, ParamSpec]:
        weight = ONES if self.start == 1 else Init("constant", self.start)
        return {"weight": ParamSpec((self.dim,), weight), "bias": ParamSpec((self.dim,), ZEROS)} if self.affine else {}

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        """Of an export in which it is made of small ops: 39 for each element and 5 for each token."""
        return 39 * output.size + 5 * output.tokens


@dataclass(frozen=True)
class LayerNormWithOnes(PerChannel):
    """A plain layer norm, and channels of ones behind its result: AppendOnes(LayerNorm(x)) as one op.

    Shapes: [..., C] -> [..., C + width]
    Source: arXiv 1607.06450
    """

    identity = "LayerNormWithOnes(dim, width, eps)"
    kind = "norm"
    fp32_island = True

    width: int
    eps: float = 1e-5

    def infer(self, *inputs: TensorType) -> TensorType:
        return super().infer(*inputs).with_channels(self.dim + self.width)


def _batch_norm_tensors(num_features: int, start: float = 1.0) -> Mapping[str, ParamSpec]:
    return {
        "weight": ParamSpec((num_features,), ONES if start == 1 else Init("constant", start)),
        "bias": ParamSpec((num_features,), ZEROS),
        "running_mean": ParamSpec((num_features,), ZEROS, learnable=False),
        "running_var": ParamSpec((num_features,), ONES, learnable=False),
    }


@dataclass(frozen=True)
class BatchNorm(ByChannel):
    """Normalise each channel over the batch and all positions; at inference by running statistics.

    start: what the weight starts at; 0 makes a branch of a residual start as nothing

    Shapes: [..., C] or [B, C, H, W] -> the same
    Source: arXiv 1502.03167; torch.nn.BatchNorm1d on [B * N, C], BatchNorm2d on planes
    """

    identity = "BatchNorm(dim, eps, momentum, *, start)"
    onnx_tool_free = True
    kind = "norm"
    fp32_island = True

    eps: float = 1e-5
    momentum: float = 0.1
    start: float = 1.0

    def infer(self, *inputs: TensorType) -> TensorType:
        x = super().infer(*inputs)
        if x.order is not None and x.order.padded:
            raise RuleBroken(f"BatchNorm over padded tokens would count the padding: {x}")
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        return _batch_norm_tensors(self.dim, self.start)


@dataclass(frozen=True)
class TokenBatchNorm(Op):
    """Normalise each token position over the batch and all channels.

    This is what `nn.BatchNorm1d(H * W)` does to `[B, H * W, C]`, as in Swin-Free's released BR code; its weights fix
    the size of the map, and their order is raster order.

    Shapes: [N, C] -> the same
    """

    identity = "TokenBatchNorm(num_tokens, eps, momentum)"
    onnx_tool_free = True
    kind = "norm"
    fp32_island = True

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


@dataclass(frozen=True)
class Affine(ByChannel):
    """x * weight + bias, a weight and a bias for each channel: a batch norm with its statistics known.

    Shapes: [..., C] or [B, C, H, W] -> the same
    """

    identity = "Affine(dim)"
    kind = "norm"

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"weight": ParamSpec((self.dim,), ONES), "bias": ParamSpec((self.dim,), ZEROS)}


@dataclass(frozen=True)
class Shift(PerChannel):
    """x + b, a learnt number for each channel, which starts at 0: the bias of some rows of a linear.

    Shapes: [..., C] -> the same
    """

    identity = "Shift(dim)"
    kind = "add"

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"": ParamSpec((self.dim,), ZEROS)}


@dataclass(frozen=True)
class TokenAffine(Op):
    """x * weight + bias, a weight and a bias for each token: a token batch norm with its statistics known.

    The tensors are in the order of the tokens they are for, whatever that order is.

    Shapes: [N, C] -> the same
    """

    identity = "TokenAffine(num_tokens)"
    kind = "norm"

    num_tokens: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("TokenAffine", x)
        if x.tokens != self.num_tokens:
            raise RuleBroken(f"TokenAffine needs {self.num_tokens} tokens, but got {x}")
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"weight": ParamSpec((self.num_tokens,), ONES), "bias": ParamSpec((self.num_tokens,), ZEROS)}
