"""Attentional feature fusion: a network weighs two maps against each other, at every place and channel."""

from __future__ import annotations

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.joining import AddVector, Mul, Sub
from archdsl.ops.linear import Linear
from archdsl.ops.norm import BatchNorm
from archdsl.ops.pointwise import Activation, Add
from archdsl.ops.tokens import MeanPool
from archdsl.parts.layers.convolutions import convolution


def fused(g: Scope, x: Value, y: Value, *, ratio: int, again: bool) -> Value:
    """x M(x + y) + y (1 - M(x + y)), written y + (x - y) M: planes of one shape -> the same.

    Args:
        ratio: by how much the hidden widths of M are narrower than the map
        again: weigh x and y a second time, by the M of what the first time gave (iAFF)
    Raises: RuleBroken when the map is narrower than `ratio`

    Source: arXiv 2009.14082, equations 2 to 4 (the released code of AFF, but not of iAFF, doubles the result)
    """
    if x.type.channels < ratio:
        raise RuleBroken(
            f"fuse_ratio may be as much as the width, but got {ratio} at width {x.type.channels}",
            field="fuse_ratio",
            hint=f"use {x.type.channels} or less",
            rule="out-of-range",
        )
    difference = g.add(Sub(), x, y, name="fuse.difference")
    mixed = g.add(Add(), x, y, name="fuse.sum")
    for name in ("fuse.first", "fuse.second")[: 1 + again]:
        weight = _weight(g.at(name), mixed, x.type.channels // ratio)
        mixed = g.add(Add(), y, g.add(Mul(), difference, weight, name=f"{name}.mul"), name=f"{name}.add")
    return mixed


def _weight(g: Scope, x: Value, hidden: int) -> Value:
    """M: sigmoid of what each place says and of what their mean says, both by way of `hidden` channels.

    Source: multi-scale channel attention, arXiv 2009.14082, equation 1; the convolutions have biases
    """
    dim = x.type.channels
    y = convolution(g, x, hidden, 1, bias=True, name="local.conv1")
    y = g.add(Activation("relu"), g.add(BatchNorm(hidden), y, name="local.norm1"), name="local.act")
    y = convolution(g, y, dim, 1, bias=True, name="local.conv2")
    y = g.add(BatchNorm(dim), y, name="local.norm2")

    v = g.add(MeanPool(), x, name="whole.pool")
    v = g.add(BatchNorm(hidden), g.add(Linear(dim, hidden), v, name="whole.fc1"), name="whole.norm1")
    v = g.add(Linear(hidden, dim), g.add(Activation("relu"), v, name="whole.act"), name="whole.fc2")
    v = g.add(BatchNorm(dim), v, name="whole.norm2")
    return g.add(Activation("sigmoid"), g.add(AddVector(), y, v, name="both"), name="weight")
