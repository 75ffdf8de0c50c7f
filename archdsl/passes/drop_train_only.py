"""Remove the ops that are the identity at inference: dropout and drop path."""

from __future__ import annotations

from archdsl.ir.graph import Graph, Node, Value
from archdsl.passes.runner import Pass


def drop_train_only(graph: Graph) -> Graph:
    """drop(x) -> x"""

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        return inputs[0] if node.op.train_only else new.add(node.op, *inputs, path=node.path)

    return graph.rebuild(make)


drop = Pass.of_graph("drop_train_only", drop_train_only)
