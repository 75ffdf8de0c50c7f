"""A family of one block, as somebody would add it."""

from __future__ import annotations

from archdsl.ir.graph import Scope
from archdsl.ops.pointwise import Activation, Add
from archdsl.parts.fields import ActivationName
from archdsl.parts.flow import Flow
from archdsl.parts.part import Block, register


@register("toy")
class ToyBlock(Block):
    """x += act(act(x))."""

    act: ActivationName = "relu"

    def lower(self, g: Scope, flow: Flow) -> Flow:
        once = g.add(Activation(self.act), flow.x, name="once")
        twice = g.add(Activation(self.act), once, name="twice")
        return flow.to(g.add(Add(), flow.x, twice, name="sum"))
