"""Ops on every number by itself: activations, sums, layer scale, drop path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from archdsl.errors import RuleBroken
from archdsl.ir.op import Init, Op, ParamSpec, PerChannel
from archdsl.ir.types import TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray

ActivationName = Literal["gelu", "gelu_tanh", "relu", "silu", "hardswish", "sigmoid", "hardsigmoid"]


@dataclass(frozen=True)
class Activation(Op):
    """gelu (exact, by erf), gelu_tanh (the tanh approximation), relu, silu, hardswish, sigmoid, or hardsigmoid
    (x / 6 + 1 / 2, kept between 0 and 1).

    Shapes: any -> the same
    """

    identity = "Activation(name)"
    kind = "activation"
    order_rule = "elementwise"

    name: ActivationName

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        return (1 if self.name == "relu" else 5) * output.size


@dataclass(frozen=True)
class Add(Op):
    """x + y. Both must have the same type, order included; only unbatched values (biases, masks) broadcast.

    Shapes: two equal -> the same
    Raises: RuleBroken when shapes or orders differ: adding tokens laid out differently has no meaning
    """

    identity = "Add()"
    kind = "add"
    joins = True
    serves_attention = True
    order_rule = "elementwise"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, y = inputs
        if not x.batched and not y.batched and len(x.shape) == len(y.shape):
            sides = list(zip(x.shape, y.shape, strict=True))
            if all(a == b or 1 in (a, b) for a, b in sides):
                return TensorType(tuple(max(a, b) for a, b in sides), x.dtype, None, batched=False)
        if x != y:
            raise RuleBroken(f"`x + y` needs two values of one type, but got x = {x}, y = {y}")
        return x

    def value(self, inputs: Sequence[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        x, y = inputs
        total: NDArray[Any] = x + y
        return total

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        return output.size


@dataclass(frozen=True)
class Average(Op):
    """The mean of two values of one type, number by number.

    Shapes: two equal -> the same
    Raises: RuleBroken when shapes or orders differ
    Source: the two heads of a distilled DeiT at inference, arXiv 2012.12877
    """

    identity = "Average()"
    kind = "add"
    joins = True
    order_rule = "elementwise"

    def infer(self, *inputs: TensorType) -> TensorType:
        x, y = inputs
        if x != y:
            raise RuleBroken(f"the mean of x and y needs two values of one type, but got x = {x}, y = {y}")
        return x


@dataclass(frozen=True)
class LayerScale(PerChannel):
    """Multiply each channel by a learnt number that starts at `start`.

    Shapes: [..., C] -> the same
    Source: CaiT, arXiv 2103.17239; ConvNeXt starts at 1e-6
    """

    identity = "LayerScale(dim, start)"
    kind = "add"

    start: float = 1e-6

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"": ParamSpec((self.dim,), Init("constant", self.start))}


@dataclass(frozen=True)
class DropPath(Op):
    """In training, set a whole image's branch to zero with probability `rate` and scale the rest by 1 / (1 - rate).

    Shapes: any -> the same; at inference the identity
    Source: stochastic depth, arXiv 1603.09382
    """

    identity = "DropPath(rate)"
    onnx_tool_free = True
    order_rule = "elementwise"
    train_only = True

    rate: float

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]


@dataclass(frozen=True)
class Dropout(Op):
    """In training, set each number to zero with probability `rate` and scale the rest by 1 / (1 - rate).

    Shapes: any -> the same; at inference the identity
    """

    identity = "Dropout(rate)"
    order_rule = "elementwise"
    train_only = True

    rate: float

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]
