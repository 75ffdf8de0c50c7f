"""Hold the tokens of windows with the place in the window outermost.

    windows, places, channels  ->  places, windows, channels

To attention nothing changes but where a token is held. In this order TensorRT reads the heads of q, k and v from the
product itself and writes them back together, without a kernel that moves them.
"""

from __future__ import annotations

from dataclasses import replace

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ir.order import Groups2x2, Order, Windows
from archdsl.ops.tokens import Reorder
from archdsl.passes.runner import Pass


def places_first(graph: Graph) -> Graph:
    """The same function with every map in windows held places first."""

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        op = Reorder(_turned(node.op.to)) if isinstance(node.op, Reorder) else node.op
        return new.add(op, *inputs, path=node.path)

    return graph.rebuild(make)


def _turned(order: Order) -> Order:
    match order:
        case Windows():
            return replace(order, places_first=True)
        case Groups2x2():
            outer = _turned(order.outer)
            assert isinstance(outer, type(order.outer))
            return replace(order, outer=outer)
    return order


turn = Pass.of_graph("places_first", places_first)
