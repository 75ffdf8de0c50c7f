"""The base of every op: a type rule, its parameters and its cost. Families of ops live in `archdsl.ops`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from archdsl.errors import RuleBroken
from archdsl.ir.identity import Identified
from archdsl.ir.order import Order, Planes
from archdsl.ir.types import SIZE_BYTES, TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Init(Identified):
    """How a parameter starts: `zeros`, `ones`, `constant`(value), `normal`(std), `uniform`(bound), `orthogonal`(length
    of the rows, at right angles to each other) or `sinusoid` (a table of positions).
    """

    identity: ClassVar[str] = "Init(law, value)"

    law: Literal["zeros", "ones", "constant", "normal", "uniform", "orthogonal", "sinusoid"]
    value: float = 0.0


ZEROS, ONES = Init("zeros"), Init("ones")


@dataclass(frozen=True)
class ParamSpec:
    """Shape and start of one tensor of an op. Buffers (`learnable=False`) are state, not parameters."""

    shape: tuple[int, ...]
    init: Init
    learnable: bool = True

    @property
    def size(self) -> int:
        """How many numbers the tensor has."""
        size = 1
        for side in self.shape:
            size *= side
        return size


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    macs: multiply-accumulates of convolutions, linears and attention's two products (torch's FlopCounterMode / 2);
          norms, activations, softmax, biases and pooling are not counted
    params: learnable numbers
    constants: numbers the network holds that are neither learnt nor state (masks)
    bytes_read, bytes_written: activations, parameters and constants read, activations written
    """

    macs: int = 0
    params: int = 0
    constants: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


OrderRule = Literal["elementwise", "tokenwise", "channelwise", "any", "fixed"]

Kind = Literal["reorder", "norm", "activation", "attention", "linear", "convolution", "add", "other", "layout"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Op(Identified, ABC):
    """One primitive. Its fields say everything about it; two ops with equal fields compute the same function.

    `order_rule` says how it meets the order of its input:
      elementwise: does the same to every number, so any order, planes included
      tokenwise: does the same to every token (last axis C), so any order of tokens
      channelwise: does the same at every position, by channel, on tokens or on planes: it stays on what it was built on
      any: its result has no order and does not depend on the input's (padding apart)
      fixed: needs exactly the order it was built with
    joins:           whether it takes several maps, all in the order of its result (a sum)
    train_only:      whether it is the identity at inference
    fp32_island:     whether it is computed in fp32 when the network is not, because it sums many numbers
    kind:            the kind of work that a profile counts it as; `layout` is a change of memory layout or format
    serves_attention: whether it counts as attention where attention alone reads its result
    onnx_tool_free:  whether onnx-tool counts nothing for it
    """

    order_rule: ClassVar[OrderRule] = "fixed"
    joins: ClassVar[bool] = False
    train_only: ClassVar[bool] = False
    fp32_island: ClassVar[bool] = False
    kind: ClassVar[Kind] = "other"
    serves_attention: ClassVar[bool] = False
    onnx_tool_free: ClassVar[bool] = False

    @abstractmethod
    def infer(self, *inputs: TensorType) -> TensorType:
        """The type of the result.

        Raises: RuleBroken when the inputs do not fit
        """

    def tensors(self) -> Mapping[str, ParamSpec]:
        """Parameters and buffers by name below the node's path; the name "" is the path itself."""
        return {}

    def macs(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        """Multiply-accumulates for one image."""
        return 0

    def constants(self) -> int:
        """How many constant numbers the op holds."""
        return 0

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int | None:
        """FLOPs for one image in onnx-tool's units (`passes.onnx_tool`); None where that convention defines none.

        Args: inputs: of a sum without a batch axis (position bias and mask), its terms, each as an input of its own
        """
        return 0 if self.onnx_tool_free else None

    def onnx_tool_params(self, output: TensorType) -> int:
        """Numbers in the initialisers of the export that onnx-tool reads, but for `constants`."""
        return 0

    def value(self, inputs: Sequence[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
        """The result's numbers from those of unbatched inputs and of the op's tensors; None where no rule is known.

        What does not depend on the image can so be computed once, when a network is deployed.
        """
        return None

    def order_in(self, order: Order, x: TensorType) -> Order | None:
        """The order the input (now `x`) must have for the result to have `order`; None when that cannot be.

        Only asked of ops that follow their input's order (elementwise, tokenwise and channelwise).
        """
        on_planes = isinstance(order, Planes)
        if self.order_rule == "tokenwise" and on_planes:
            return None
        if self.order_rule == "channelwise" and on_planes != isinstance(x.order, Planes):
            return None
        return order

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        """The cost for one image, of inputs and a result of these types."""
        size, constants = SIZE_BYTES[output.dtype], self.constants()
        params = state = 0
        for tensor in self.tensors().values():
            if tensor.learnable:
                params += tensor.size
            else:
                state += tensor.size
        read = sum([x.size_bytes for x in inputs]) + size * (params + state + constants)
        return Cost(self.macs(inputs, output), params, constants, read, output.size_bytes)

    def __str__(self) -> str:
        """`Linear(d_in=96, d_out=288)`: the name and the fields that are not at their defaults."""
        shown = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True)
class PerChannel(Op):
    """The base of ops on tokens `dim` channels wide that keep the type of their input: [..., dim] -> the same."""

    order_rule: ClassVar[OrderRule] = "tokenwise"

    dim: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens(type(self).__name__, x)
        need_channels(type(self).__name__, x, self.dim)
        return x


@dataclass(frozen=True)
class ByChannel(PerChannel):
    """The base of ops that treat each channel in its own way, the same at every position: tokens or planes."""

    order_rule = "channelwise"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_channels(type(self).__name__, x, self.dim)
        return x


def need_tokens(op: str, x: TensorType) -> None:
    """Raise RuleBroken unless `x` is tokens or a vector (channels last)."""
    if isinstance(x.order, Planes):
        raise RuleBroken(f"{op} works on tokens, channels last, but got {x}")


def need_channels(op: str, x: TensorType, channels: int) -> None:
    """Raise RuleBroken unless `x` is `channels` wide."""
    if x.channels != channels:
        raise RuleBroken(f"{op} needs {channels} channels, but got {x}")


def need_planes(op: str, x: TensorType) -> Planes:
    """Raise RuleBroken unless `x` is planes; return their order."""
    if not isinstance(x.order, Planes):
        raise RuleBroken(f"{op} works on planes [B, C, H, W], but got {x}")
    return x.order
