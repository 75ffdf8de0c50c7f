"""Fold learnt shifts into the bias of the linear before them.

    shift(linear(x)[a:b])  ->  linear'(x)[a:b], rows a … b - 1 of its bias plus the shift

SwinV2's q and v are shifted and its k is not: one linear makes all three, its bias 0 in the rows of k.
"""

from __future__ import annotations

from dataclasses import replace

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.linear import Linear
from archdsl.ops.norm import Shift
from archdsl.ops.tokens import Reorder
from archdsl.passes.fold_scales import rows_behind
from archdsl.passes.network import Array, Network, Rewriting
from archdsl.passes.runner import Pass
from archdsl.passes.uses import Uses


def fold_shifts(network: Network) -> Network:
    """The same function without the shifts of what nothing but some rows of a linear make."""
    import numpy as np

    uses, added, gone = Uses(network.graph), dict[Node, Array](), set[Node]()
    for node in network.graph.live():
        if not isinstance(node.op, Shift) or isinstance(node.inputs[0].op, Reorder):
            continue
        rows = rows_behind(node.inputs[0], uses)
        if rows is not None and isinstance(rows.of.op, Linear):
            added.setdefault(rows.of, np.zeros(rows.of.op.d_out))[rows.start : rows.stop] += network.of(node)[""]
            gone.add(node)
    rewriting = Rewriting(network)

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if node in gone:
            return inputs[0]
        if node not in added:
            return new.add(node.op, *inputs, path=node.path)
        assert isinstance(node.op, Linear)
        tensors = network.of(node)
        tensors["bias"] = tensors.get("bias", 0.0) + added[node]
        return rewriting.put(new, replace(node.op, bias=True), inputs, node.path, tensors)

    return rewriting.done(network.graph.rebuild(make))


fold = Pass("fold_shifts", fold_shifts)
