"""Compute a ReLU once where it is computed twice, as somebody would add it."""

from __future__ import annotations

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.pointwise import Activation
from archdsl.passes.runner import Pass

RELU = Activation("relu")


def relu_once(graph: Graph) -> Graph:
    """relu(relu(x)) -> relu(x)"""

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if node.op == RELU and node.inputs[0].op == RELU:
            return inputs[0]
        return new.add(node.op, *inputs, path=node.path)

    return graph.rebuild(make)


once = Pass.of_graph("relu_once", relu_once)
