"""Steps that do nothing stay in the code of a block only where a block of the same class needs the step.

The graph comes in regular form (`lower(spec, regular=True)`), in which all blocks of a kind have the same steps.
"""

from __future__ import annotations

from collections.abc import Callable

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.attention import ShiftMask
from archdsl.ops.pointwise import Add, Dropout, DropPath
from archdsl.ops.tokens import Reorder


def without_idle_steps(graph: Graph, role_of: Callable[[Node], str]) -> Graph:
    """The same function without the steps that do nothing in any block of a class.

    role_of: the class of a node's block and the node's path within it: equal for nodes that have one line of code
    """
    needed = {role_of(node) for node in graph.live() if not does_nothing(node)}

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        idle = does_nothing(node) and role_of(node) not in needed
        return inputs[0] if idle else new.add(node.op, *inputs, path=node.path)

    return graph.rebuild(make)


def does_nothing(node: Node) -> bool:
    """Whether the node's value is that of its first input."""
    match node:
        case Node(op=DropPath(0.0) | Dropout(0.0)):
            return True
        case Node(op=Reorder(to), inputs=(x,)):
            return x.type.order == to
        case Node(op=Add(), inputs=(_, Node(op=ShiftMask(order)))):
            return not order.shifted
    return False
