"""One linear for each part of a linear's result.

    q, k, v = slices of linear(x)  ->  q = linear_q(x), k = linear_k(x), v = linear_v(x)

Each has its rows of the weight. Nothing then has to be cut, and the products write what their uses want in one
piece.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.linear import Linear
from archdsl.ops.tokens import Slice
from archdsl.passes.network import Network, Rewriting
from archdsl.passes.runner import Pass
from archdsl.passes.uses import Uses


def split_linears(network: Network) -> Network:
    """The same function; a linear that only slices read, none of them twice the same channels, is gone."""
    uses, rewriting = Uses(network.graph), Rewriting(network)
    linears = {node for node in network.graph.live() if isinstance(node.op, Linear) and _is_cut(node, uses)}

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if node in linears:
            return inputs[0]  # what its slices multiply
        source = node.inputs[0] if isinstance(node.op, Slice) else None
        if source not in linears:
            return new.add(node.op, *inputs, path=node.path)
        assert isinstance(node.op, Slice) and isinstance(source.op, Linear)
        rows = slice(node.op.start, node.op.stop)
        linear = replace(source.op, d_out=node.op.stop - node.op.start)
        return rewriting.put(
            new, linear, inputs, node.path, {key: numbers[rows] for key, numbers in network.of(source).items()}
        )

    return rewriting.done(network.graph.rebuild(make))


def _is_cut(linear: Node, uses: Uses) -> bool:
    slices = [node.op for node in uses.of(linear)]
    if uses.is_output(linear) or len(slices) < 2 or not all(isinstance(op, Slice) for op in slices):
        return False
    cuts = sorted((op.start, op.stop) for op in slices if isinstance(op, Slice))
    return all(stop <= start for (_, stop), (start, _) in pairwise(cuts))


split = Pass("split_linears", split_linears)
