"""Moving and choosing tokens: Reorder, MergeGroups, Slice, extra tokens and channels, positions, pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archdsl.errors import RuleBroken
from archdsl.ir.op import Init, Op, ParamSpec, need_tokens
from archdsl.ir.order import Groups2x2, Order, Raster, Windows
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class Reorder(Op):
    """Lay the same map out in another order; slots that are padding become zero, padding of the input is dropped.

    Window partition and merge, cyclic shift, the gather of patch merging and tokens <-> planes are all this op.

    Shapes: [N, C] or [C, H, W] -> as `to` says
    """

    identity = "Reorder(to)"
    onnx_tool_free = True
    kind = "reorder"

    to: Order

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.order is None:
            raise RuleBroken(f"only a map can be reordered, but got {x}")
        if (x.order.height, x.order.width) != (self.to.height, self.to.width):
            raise RuleBroken(f"a {x.order} cannot become a {self.to}: the maps differ in size")
        return x.in_order(self.to)


@dataclass(frozen=True)
class MergeGroups(Op):
    """Concatenate the channels of each group of four neighbours into one token of the half-size map.

    Shapes: [N, C] in groups2x2 -> [N / 4, 4 C] in the groups' outer order
    Source: Swin's patch merging, arXiv 2103.14030
    """

    identity = "MergeGroups()"
    onnx_tool_free = True
    kind = "reorder"
    order_rule = "tokenwise"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if not isinstance(x.order, Groups2x2):
            raise RuleBroken(f"MergeGroups needs tokens in groups of 2x2, but got {x}")
        n, c = x.shape
        return TensorType((n // 4, 4 * c), x.dtype, x.order.outer, x.batched)

    def order_in(self, order: Order, x: TensorType) -> Order | None:
        if x.order is None or not isinstance(order, Raster | Windows) or order.padded:
            return None
        return Groups2x2(x.order.height, x.order.width, order)


@dataclass(frozen=True)
class Slice(Op):
    """Channels start, start + 1, …, stop - 1.

    Shapes: [..., C] -> [..., stop - start]
    """

    identity = "Slice(start, stop)"
    onnx_tool_free = True
    serves_attention = True
    order_rule = "tokenwise"

    start: int
    stop: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("Slice", x)
        if not 0 <= self.start < self.stop <= x.channels:
            raise RuleBroken(f"channels {self.start}:{self.stop} are not in {x}")
        return x.with_channels(self.stop - self.start)


@dataclass(frozen=True)
class PrependToken(Op):
    """Put one learnt token before the others; the result is a sequence, no longer a map.

    Shapes: [N, C] -> [N + 1, C]
    Source: ViT's class token, arXiv 2010.11929
    """

    identity = "PrependToken(dim, init)"

    dim: int
    init: Init = Init("normal", 1e-6)

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("PrependToken", x)
        return TensorType((x.shape[0] + 1, x.shape[1]), x.dtype, None, x.batched)

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"": ParamSpec((1, 1, self.dim), self.init)}


@dataclass(frozen=True)
class AppendOnes(Op):
    """Append channels of ones to each token. A linear behind it can hold its bias among its weights.

    Shapes: [N, C] -> [N, C + width]
    """

    identity = "AppendOnes(width)"
    onnx_tool_free = True
    order_rule = "tokenwise"

    width: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("AppendOnes", x)
        return x.with_channels(x.channels + self.width)


@dataclass(frozen=True)
class AddPosition(Op):
    """Add a vector to each token: a learnt one, or one of fixed waves.

    fixed: sin(t / 10000^(c / dim)) in the even channels c of token t, cos of the same angle in the odd one behind

    Shapes: [N, C] -> the same
    Source: ViT's 1-D position embedding, arXiv 2010.11929; fixed: arXiv 1706.03762, section 3.5
    """

    identity = "AddPosition(num_tokens, dim, init, *, fixed)"
    kind = "add"

    num_tokens: int
    dim: int
    init: Init = Init("normal", 0.02)
    fixed: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.shape != (self.num_tokens, self.dim):
            raise RuleBroken(f"AddPosition holds {self.num_tokens} x {self.dim}, but got {x}")
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        start = Init("sinusoid") if self.fixed else self.init
        return {"": ParamSpec((1, self.num_tokens, self.dim), start, learnable=not self.fixed)}


@dataclass(frozen=True)
class TakeToken(Op):
    """One token of a sequence.

    Shapes: [N, C] -> [C]
    """

    identity = "TakeToken(position)"

    position: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if len(x.shape) != 2 or not 0 <= self.position < x.shape[0]:
            raise RuleBroken(f"there is no token {self.position} in {x}")
        return TensorType((x.channels,), x.dtype, None, x.batched)


@dataclass(frozen=True)
class MeanPool(Op):
    """The mean over all positions; the order of the tokens does not matter, padding would.

    Shapes: [N, C] or [C, H, W] -> [C]
    """

    identity = "MeanPool()"
    fp32_island = True
    order_rule = "any"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if len(x.shape) < 2 or (x.order is not None and x.order.padded):
            raise RuleBroken(f"MeanPool needs a map or a sequence without padding, but got {x}")
        return TensorType((x.channels,), x.dtype, None, x.batched)

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        return (inputs[0].tokens + 2) * output.size
