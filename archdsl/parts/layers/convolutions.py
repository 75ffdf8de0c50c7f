"""Layers on planes that blocks share: a convolution that keeps the map, its kernel's rule, and norms."""

from __future__ import annotations

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ir.op import Init
from archdsl.ops.linear import Conv2d
from archdsl.ops.norm import BatchNorm
from archdsl.ops.pointwise import Activation
from archdsl.parts.fields import NormName
from archdsl.parts.flow import as_planes, as_tokens
from archdsl.parts.layers.sublayers import norm


def convolution(
    g: Scope,
    x: Value,
    dim: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    dilation: int = 1,
    name: str,
) -> Value:
    """A convolution to `dim` channels, padded by half of what it spans: [C, H, W] -> [dim, ⌈H / stride⌉, ⌈W / stride⌉].

    Its weights start normal with variance 2 / (dim * kernel^2), as they should before a relu.

    Source: arXiv 1502.01852, equation 14
    """
    init = Init("normal", (2 / (dim * kernel**2)) ** 0.5)
    dilation = dilation if kernel > 1 else 1  # a kernel of one place has nothing to spread
    conv = Conv2d(x.type.channels, dim, kernel, stride, dilation * (kernel // 2), groups, bias, init, dilation)
    return g.add(conv, x, name=name)


def conv_norm_relu(g: Scope, x: Value, dim: int, kernel: int, *, dilation: int = 1, name: str) -> Value:
    """A convolution without a bias, batch norm, relu: [C, H, W] -> [dim, H, W]."""
    x = convolution(g, x, dim, kernel, dilation=dilation, name=f"{name}.conv")
    return g.add(Activation("relu"), g.add(BatchNorm(dim), x, name=f"{name}.norm"), name=f"{name}.act")


def need_odd(kernel: int) -> None:
    """Raises: RuleBroken for a kernel that, padded by half of it, does not keep the map's size"""
    if kernel % 2 == 0:
        raise RuleBroken(
            f"the kernel must be odd to keep the map's size, but got {kernel}",
            field="kernel",
            hint=f"use {kernel - 1} or {kernel + 1}",
            rule="wrong-value",
        )


def norm_of_map(g: Scope, x: Value, kind: NormName, *, eps: float, name: str) -> Value:
    """The norm called `kind` of planes, as planes: layer norm looks at the channels of one place."""
    if kind == "layer":
        return as_planes(g, norm(g, as_tokens(g, x), kind, axis="channel", eps=eps, name=name))
    return norm(g, x, kind, axis="channel", eps=eps, name=name)
