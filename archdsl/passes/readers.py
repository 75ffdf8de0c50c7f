"""Who reads a value: what a pass must know before it changes one."""

from __future__ import annotations

from archdsl.ir.graph import Graph, Node
from archdsl.ops import Conv2d, Linear, Reorder


class Readers:
    """The users of each live node of a graph."""

    def __init__(self, graph: Graph):
        self._users, self._outputs = graph.users(), set(graph.outputs.values())

    def of(self, node: Node) -> list[Node]:
        return self._users[node]

    def is_output(self, node: Node) -> bool:
        return node in self._outputs

    def alone(self, node: Node) -> bool:
        """Whether exactly one op reads `node`, once, and it is no output."""
        return len(self._users[node]) == 1 and node not in self._outputs

    def only_linear_before(self, node: Node, *, through_padding: bool = False) -> Node | None:
        """The linear or convolution whose result `node` reads, maybe reordered, if nothing else reads that.

        through_padding: whether a reorder may add zeros on the way
        """
        x = node.inputs[0]
        while isinstance(x.op, Reorder) and (through_padding or not x.op.to.padded) and self.alone(x):
            x = x.inputs[0]
        return x if isinstance(x.op, Linear | Conv2d) and self.alone(x) else None
