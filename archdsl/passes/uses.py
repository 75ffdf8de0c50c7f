"""The uses of a value: what a pass or a backend must know before it changes or merges them."""

from __future__ import annotations

from archdsl.ir.graph import Graph, Node
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.tokens import Reorder, Slice


class Uses:
    """The users of each live node of a graph."""

    def __init__(self, graph: Graph):
        self._users, self._outputs = graph.users(), set(graph.outputs.values())

    def of(self, node: Node) -> list[Node]:
        """The live nodes that read `node`; one that reads it twice is listed twice."""
        return self._users[node]

    def is_output(self, node: Node) -> bool:
        """Whether `node` is a result of the network."""
        return node in self._outputs

    def has_single_use(self, node: Node) -> bool:
        """Whether exactly one op reads `node`, once, and it is no output."""
        return len(self._users[node]) == 1 and node not in self._outputs

    def only_linear_before(self, node: Node, *, through_padding: bool = False) -> Node | None:
        """The linear or convolution whose result `node` reads, maybe reordered, if nothing else reads that.

        through_padding: whether a reorder may add zeros on the way
        """
        x = node.inputs[0]
        while isinstance(x.op, Reorder) and (through_padding or not x.op.to.padded) and self.has_single_use(x):
            x = x.inputs[0]
        return x if isinstance(x.op, Linear | Conv2d) and self.has_single_use(x) else None


Splits = dict[Node, tuple[Slice, ...]]
"""Values that slices cut without gaps or overlaps (q, k and v of one linear), with those slices in order."""


def splits_of(graph: Graph) -> Splits:
    """The values of a graph that are split as a whole; a backend makes all slices of one by one op."""
    found: dict[Node, set[Slice]] = {}
    for node in graph.live():
        if isinstance(node.op, Slice):
            found.setdefault(node.inputs[0], set()).add(node.op)
    ordered = {source: tuple(sorted(ops, key=lambda op: (op.start, op.stop))) for source, ops in found.items()}
    return {source: slices for source, slices in ordered.items() if _is_split(slices, source.type.channels)}


def _is_split(slices: tuple[Slice, ...], channels: int) -> bool:
    cuts = [0, *(part.stop for part in slices)]
    return len(slices) > 1 and [part.start for part in slices] == cuts[:-1] and cuts[-1] == channels
