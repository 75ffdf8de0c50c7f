"""Multiplying by weights: Linear on tokens, Conv2d on planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from archdsl.errors import RuleBroken
from archdsl.ir.op import ZEROS, Init, Op, ParamSpec, need_channels, need_planes, need_tokens
from archdsl.ir.order import Planes
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class Linear(Op):
    """y = x W^T + b on the last axis.

    Shapes: [..., d_in] -> [..., d_out]
    Cost:   tokens * d_in * d_out MACs
    Source: torch.nn.Linear
    """

    identity = "Linear(d_in, d_out, bias, init)"
    kind = "linear"
    order_rule = "tokenwise"

    d_in: int
    d_out: int
    bias: bool = True
    init: Init = Init("normal", 0.02)

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("Linear", x)
        need_channels("Linear", x, self.d_in)
        return x.with_channels(self.d_out)

    def tensors(self) -> Mapping[str, ParamSpec]:
        weight = {"weight": ParamSpec((self.d_out, self.d_in), self.init)}
        return weight | {"bias": ParamSpec((self.d_out,), ZEROS)} if self.bias else weight

    def macs(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        return output.size * self.d_in

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        """A product of matrices and, if there is one, the addition of the bias."""
        return self.macs(inputs, output) + (output.size if self.bias else 0)

    def onnx_tool_params(self, output: TensorType) -> int:
        return self.tensors()["weight"].size


@dataclass(frozen=True)
class Conv2d(Op):
    """Convolution with zero padding.

    dilation: how many places apart the numbers of a kernel are; it then reaches over dilation (kernel - 1) + 1 places

    Shapes: [B, c_in, H, W] -> [B, c_out, (H + 2 padding - dilation (kernel - 1) - 1) // stride + 1, …]
    Cost:   output elements * c_in / groups * kernel^2 MACs
    Source: torch.nn.Conv2d; `init` None is its own default, U(±1/sqrt(fan_in)) for weight and bias
    """

    identity = "Conv2d(c_in, c_out, kernel, stride, padding, groups, bias, init, *, dilation)"
    kind = "convolution"

    c_in: int
    c_out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = True
    init: Init | None = None
    dilation: int = 1

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        order = need_planes("Conv2d", x)
        need_channels("Conv2d", x, self.c_in)
        if self.c_in % self.groups or self.c_out % self.groups:
            raise RuleBroken(
                f"groups {self.groups} must divide {self.c_in} and {self.c_out} channels", rule="divisible"
            )
        reach = self.dilation * (self.kernel - 1) + 1
        height, width = ((side + 2 * self.padding - reach) // self.stride + 1 for side in (order.height, order.width))
        if height < 1 or width < 1:
            raise RuleBroken(f"a kernel of {reach} does not fit into {x}", hint="use a larger input")
        return TensorType((self.c_out, height, width), x.dtype, Planes(height, width), x.batched)

    def tensors(self) -> Mapping[str, ParamSpec]:
        shape = (self.c_out, self.c_in // self.groups, self.kernel, self.kernel)
        torch_default = Init("uniform", prod(shape[1:]) ** -0.5)
        weight = {"weight": ParamSpec(shape, self.init or torch_default)}
        bias = {"bias": ParamSpec((self.c_out,), ZEROS if self.init else torch_default)}
        return weight | bias if self.bias else weight

    def macs(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        return output.size * (self.c_in // self.groups) * self.kernel**2

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        """A product of matrices and, if there is one, the addition of the bias."""
        return self.macs(inputs, output) + (output.size if self.bias else 0)

    def onnx_tool_params(self, output: TensorType) -> int:
        return self.tensors()["weight"].size
