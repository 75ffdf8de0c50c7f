"""The deploy form's linears: on a CPU one kernel computes a linear, its activation and the residual addition.

What that brings was measured (torch 2.13, Zen 4, fp32, Swin-T's linears by themselves, one core, batch 1 and 8): oneDNN
with weights packed beforehand takes 0.86 and 0.79 of the time of `nn.Linear`, which calls MKL; without packing 0.89 and
0.82. With GELU in the same kernel it is 0.77 and 0.80 of the two steps, with the addition 0.83 and 0.82. MKL's own
packed weights bring nothing (1.01 and 0.97). Attention stays as it is: torch's fused attention beats explicit products
in place, heads folded with windows, and copies that make each head contiguous, all by 0 to 50 %.

Only inference on an x86 CPU in fp32 or bf16 comes here. All else (another device or format, gradients, autocast,
torch.compile, torch.export, tracing, vmap, a torch without these kernels) computes the same with plain torch.
"""

from __future__ import annotations

import operator
import platform
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

KERNEL_NAMES = {
    "none": ("none", ""),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "hardswish": ("hardswish", ""),
}
"""Our activations by the names that the kernel gives them: (kind, way to compute it)."""


def optimise(module: fx.GraphModule) -> fx.GraphModule:
    """Turn the linears of `module`, in place, into `PackedLinear`, with what follows them where only that reads them.

    Parameters stay the same objects under the same names. Node names stay too, but the nodes that a linear took in go.
    """
    code = module.graph
    calls = Counter(node.target for node in code.nodes if node.op == "call_module")
    for node in list(code.nodes):
        # a module called twice keeps its form: what follows one call need not follow the other
        if node.op == "call_module" and calls[node.target] == 1:
            linear = module.get_submodule(node.target)
            if type(linear) is nn.Linear:
                packed = PackedLinear.of(linear)
                module.set_submodule(node.target, packed)
                _take_in_activation(code, node, packed)
    for node in list(code.nodes):
        if _calls(node, operator.add) and not node.kwargs and len(node.args) == 2:
            _take_in_addition(module, node)
    code.lint()
    module.recompile()
    return module


def _take_in_activation(code: fx.Graph, node: fx.Node, packed: PackedLinear) -> None:
    """activation(linear(x))  ->  linear_with_activation(x)"""
    follower = _only_user(node)
    if follower is None or follower.args != (node,):
        return
    name = next((name for name in KERNEL_NAMES if _is_activation(follower, name)), None)
    if name is not None:
        packed.activation = name
        follower.replace_all_uses_with(node)
        code.erase_node(follower)


def _is_activation(node: fx.Node, name: str) -> bool:
    if name == "gelu_tanh":
        return _calls(node, F.gelu) and node.kwargs == {"approximate": "tanh"}
    return _calls(node, getattr(F, name, None)) and not node.kwargs


def _take_in_addition(module: fx.GraphModule, addition: fx.Node) -> None:
    """x + linear(y)  ->  linear(y, x)"""
    for linear, other in (addition.args[::-1], addition.args):
        if not isinstance(linear, fx.Node) or not isinstance(other, fx.Node) or linear is other:
            continue
        if linear.op != "call_module" or len(linear.args) != 1 or _only_user(linear) is not addition:
            continue
        packed = module.get_submodule(str(linear.target))
        if isinstance(packed, PackedLinear) and packed.activation == "none":
            addition.prepend(linear)  # where both of its operands are known
            linear.args = (*linear.args, other)
            addition.replace_all_uses_with(linear)
            module.graph.erase_node(addition)
            return


def _calls(node: fx.Node, function: object) -> bool:
    return node.op == "call_function" and node.target is function


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


@dataclass(frozen=True)
class _Packed:
    """A copy of a weight in the layout that the kernel likes, and what it is a copy of."""

    values: Tensor
    source: Tensor  # shares the weight's memory, so that no other weight can come to lie there meanwhile
    version: int

    def fits(self, weight: Tensor) -> bool:
        """Whether `weight` still is what was packed."""
        source = self.source
        return (
            weight._version == self.version
            and weight.data_ptr() == source.data_ptr()
            and weight.dtype == source.dtype
            and weight.stride() == source.stride()
        )


class PackedLinear(nn.Linear):
    """activation(x W^T + b), or x W^T + b + residual: an `nn.Linear` to the outside, for inference in the first place.

    The first call that can use it makes a packed copy of the weight and keeps it, which doubles the memory of the
    weight on a CPU. Each call looks whether the weight has changed since: loading a state dict, `.to()`, `copy_` and
    any other change that torch counts are seen. A change behind torch's back (`weight.data.add_()`, a NumPy array that
    shares the memory) is not: call `forget()` after it. The copy is not saved, pickled or copied with the module.
    """

    activation: str = "none"
    _packed: _Packed | None = None

    @classmethod
    def of(cls, linear: nn.Linear) -> PackedLinear:
        """The same linear, sharing the parameters."""
        made = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made.train(linear.training)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """[..., in] (, [..., out]) -> [..., out]"""
        if not self._suits(input, residual):
            return self._plain(input, residual)
        kind, algorithm = KERNEL_NAMES[self.activation]
        if residual is None:
            y: Tensor = _kernels.unary(input, self._weight(), self.bias, kind, [], algorithm)
        else:
            y = _kernels.binary(input, residual, self._weight(), self.bias, "add")
        return y

    def forget(self) -> None:
        """Drop the packed copy; the next call makes a new one."""
        self._packed = None

    def _plain(self, x: Tensor, residual: Tensor | None) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        match self.activation:
            case "none":
                pass
            case "gelu_tanh":
                y = F.gelu(y, approximate="tanh")
            case name:
                y = getattr(F, name)(y)
        return y if residual is None else residual + y

    def _suits(self, x: Tensor, residual: Tensor | None) -> bool:
        """Whether the kernel computes this call just as plain torch would."""
        # first of all, so that compilers and tracers see no more than this
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() or _kernels is None or type(x) is not Tensor:
            return False
        weight, bias = self.weight, self.bias
        return (
            x.device.type == "cpu"
            and x.layout is torch.strided
            and type(weight) is nn.Parameter
            and x.dtype in _kernels.dtypes
            and weight.dtype == x.dtype
            and weight.device == x.device
            and (bias is None or (bias.dtype == x.dtype and bias.device == x.device))
            and (residual is None or _like(residual, x, (*x.shape[:-1], self.out_features)))
            and x.numel() > 0
            and _plain_inference(x, weight, bias, residual)
        )

    def _weight(self) -> Tensor:
        weight = self.weight.detach()
        if weight.is_inference():  # its changes are not counted; the kernel takes it as it is
            return weight
        packed = self._packed
        if packed is None or not packed.fits(weight):
            version = weight._version
            packed = self._packed = _Packed(_kernels.pack(weight), weight, version)
        return packed.values

    def _apply(self, fn: Any, recurse: bool = True) -> PackedLinear:
        self.forget()
        moved: PackedLinear = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.activation == "none" else f", activation={self.activation}")


def _like(residual: Tensor, x: Tensor, shape: tuple[int, ...]) -> bool:
    return (
        type(residual) is Tensor
        and residual.shape == shape
        and residual.dtype == x.dtype
        and residual.device == x.device
    )


def _plain_inference(*tensors: Tensor | None) -> bool:
    """Nothing records or transforms what is computed now: no gradients, no autocast, no mode, no torch.func."""
    recorded = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    return not (
        recorded
        or torch.is_autocast_enabled("cpu")
        or not torch.backends.mkldnn.enabled
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


class _Kernels:
    """oneDNN's linears as torch's own compiler calls them on a CPU.

    Raises: AttributeError, RuntimeError where this torch lacks one of them
    """

    def __init__(self) -> None:
        namespace = torch.ops.mkldnn
        self.unary = namespace._linear_pointwise.default
        self.binary = namespace._linear_pointwise.binary
        self.pack = namespace._reorder_linear_weight.default
        bf16 = namespace._is_mkldnn_bf16_supported()
        self.dtypes = frozenset({torch.float32, torch.bfloat16} if bf16 else {torch.float32})
        with torch.inference_mode(False):
            x = torch.ones(1, 1)
            _plain_inference(x)  # names that this torch must know
            for kind, algorithm in KERNEL_NAMES.values():
                self.unary(x, self.pack(x), None, kind, [], algorithm)
            self.binary(x, x, self.pack(x), None, "add")


def _find_kernels() -> Any:
    """The kernels, or None where this machine or this torch has none of them."""
    if platform.machine().lower() not in ("x86_64", "amd64"):  # measured there only
        return None
    try:
        return _Kernels()
    except (AttributeError, RuntimeError):
        return None


_kernels: Any = _find_kernels()
