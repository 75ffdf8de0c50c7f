"""Parts that do what no part of ours does, for backends that read structure out of a graph."""

from __future__ import annotations

import pytest

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope
from archdsl.ir.order import Groups2x2, Planes, Raster, Windows
from archdsl.ops.attention import ShiftMask
from archdsl.ops.linear import Linear
from archdsl.ops.norm import Affine, LayerNorm, TokenAffine, TokenBatchNorm
from archdsl.ops.pointwise import Activation, Add, Dropout, DropPath
from archdsl.ops.tokens import MeanPool, MergeGroups, Reorder, Slice
from archdsl.parts import Block, part
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import mlp, residual, self_attention
from archdsl.parts.part import Head, Part


class Numbered(Block):
    """Layers by number, a scope that is left and entered again, slices that overlap."""

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        y, dim = x, x.type.channels
        for index in range(2):
            y = g.add(Activation("silu"), g.add(Linear(dim, dim), y, name=f"layers.{index}"))
            y = residual(g, y, mlp(g.at(f"deep.{index}"), y, 2, "gelu_tanh"), None)
        y = g.add(Activation("hardswish"), g.add(Linear(dim, dim), y, name="twice.first"))
        y = g.add(Linear(dim, dim), g.add(Activation("relu"), y, name="between"), name="twice.second")
        parts = [(0, dim // 4), (dim // 4, dim), (1, 3)]
        cut = [g.add(Slice(*ends), y, name=f"cut{index}") for index, ends in enumerate(parts)]
        wide = [g.add(Linear(piece.type.channels, dim), piece, name="wide") for piece in cut]
        return flow.to(g.add(Add(), x, g.add(Add(), g.add(Add(), wide[0], wide[1]), wide[2])))


class Wandering(Block):
    """Every order becomes every other, and drop path acts on tokens that lie window by window."""

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        order, dim = x.type.order, x.type.channels
        if order is None:
            raise RuleBroken("this needs a map")
        height, width = order.height, order.width
        half = (-(-height // 2), -(-width // 2))
        shifted = Windows(height, width, (4, 3), (2, 1))
        orders = (
            shifted,
            Windows(height, width, (3, 3)),
            Groups2x2(height, width, Raster(*half)),
            Planes(height, width),
            Groups2x2(height, width, Windows(*half, (2, 2), (1, 1))),
        )
        y = x
        for first in orders:
            for second in orders:
                y = g.add(Reorder(second), g.add(Reorder(first), y))
                if not isinstance(second, Planes):
                    y = g.add(Linear(dim, dim), y, name="mix")
        y = g.add(DropPath(0.4), g.add(Reorder(shifted), y))
        mask = g.add(ShiftMask(shifted), name="mask")
        y = self_attention(g, y, 1, qkv_bias=False, bias=mask)
        y = g.add(Reorder(order), g.add(Dropout(0.1), y))
        y = g.add(TokenBatchNorm(order.num_slots), y, name="norm")
        y = g.add(Affine(dim), g.add(TokenAffine(order.num_slots), y, name="by_token"), name="by_channel")
        y = g.add(LayerNorm(dim, affine=False), y, name="plain")
        return flow.to(residual(g, x, y, None))


class Carrying(Block):
    """A side value goes from block to block."""

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        y = g.add(Linear(x.type.channels, x.type.channels), x, name="fc")
        y = g.add(Add(), y, flow.side["carried"]) if "carried" in flow.side else y
        return Flow(g.add(Add(), x, g.add(Activation("gelu"), y)), {"carried": y}, flow.stages)


class Growing(Block):
    """As many layers as it is told, so that no two blocks have one form; each leaves its submodule and comes back."""

    layers: int = 1

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = y = as_tokens(g, flow.x)
        dim = x.type.channels
        for index in range(self.layers):
            inner = g.add(Linear(dim, dim), y, name=f"inner.first{index}")
            outer = g.add(Linear(dim, dim), g.add(Activation("relu"), inner), name=f"outer{index}")
            y = g.add(Add(), inner, g.add(Linear(dim, dim), outer, name=f"inner.second{index}"))
        return flow.to(residual(g, x, y, 0.1))


class Tapping(Head):
    """Reads the map after each stage."""

    classes: int = 10

    def lower(self, g: Scope, flow: Flow) -> Flow:
        pooled = [g.add(MeanPool(), x) for x in flow.stages]
        logits = [g.add(Linear(x.type.channels, self.classes), x, name="fc") for x in pooled]
        merged = g.add(MergeGroups(), g.add(Reorder(_groups(flow)), flow.x))
        whole = g.add(Linear(merged.type.channels, self.classes), g.add(MeanPool(), merged), name="whole")
        for x in logits:
            whole = g.add(Add(), whole, x)
        return flow.to(whole)


def _groups(flow: Flow) -> Groups2x2:
    order = flow.x.type.order
    assert order is not None
    return Groups2x2(order.height, order.width, Raster(-(-order.height // 2), -(-order.width // 2)))


BLOCKS: dict[str, type[Part]] = {"numbered": Numbered, "wandering": Wandering, "carrying": Carrying, "growing": Growing}
HEADS: dict[str, type[Part]] = {"tapping": Tapping}


@pytest.fixture
def odd_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry holds these parts too."""
    blocks, heads = part.parts("block"), part.parts("head")
    for known in (BLOCKS, HEADS):
        for name, cls in known.items():
            cls.type_name = name
    registry = {**part._REGISTRY, "block": blocks | BLOCKS, "head": heads | HEADS}
    monkeypatch.setattr(part, "_REGISTRY", registry)
