"""Layers on planes that blocks share: a convolution that keeps the map, and norms."""

from __future__ import annotations

from archdsl.ir.graph import Scope, Value
from archdsl.ir.op import Init
from archdsl.ops.linear import Conv2d
from archdsl.parts.fields import NormName
from archdsl.parts.flow import as_planes, as_tokens
from archdsl.parts.layers.sublayers import norm


def convolution(
    g: Scope, x: Value, dim: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = False, name: str
) -> Value:
    """A convolution to `dim` channels, padded by half its kernel: [C, H, W] -> [dim, ⌈H / stride⌉, ⌈W / stride⌉].

    Its weights start normal with variance 2 / (dim * kernel^2), as they should before a relu.

    Source: arXiv 1502.01852, equation 14
    """
    init = Init("normal", (2 / (dim * kernel**2)) ** 0.5)
    conv = Conv2d(x.type.channels, dim, kernel, stride, kernel // 2, groups, bias, init)
    return g.add(conv, x, name=name)


def norm_of_map(g: Scope, x: Value, kind: NormName, *, eps: float, name: str) -> Value:
    """The norm called `kind` of planes, as planes: layer norm looks at the channels of one place."""
    if kind == "layer":
        return as_planes(g, norm(g, as_tokens(g, x), kind, axis="channel", eps=eps, name=name))
    return norm(g, x, kind, axis="channel", eps=eps, name=name)
