"""Compute once what does not depend on the image: position biases, masks and their sums.

Each value without a batch axis whose op knows its numbers (`Op.value`) becomes a `Constant`. Sums of more than LIMIT
numbers stay sums of smaller constants. Equal constants become one.
"""

from __future__ import annotations

import hashlib

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.values import Constant
from archdsl.passes.network import Array, Network, Rewriting
from archdsl.passes.runner import Pass

LIMIT = 1 << 24
"""The most numbers (64 MB) that one constant may hold."""


def fold_constants(network: Network) -> Network:
    """The same function with constants where it did not depend on its input."""
    import numpy as np

    known = _known(network)
    rewriting, held = Rewriting(network), dict[tuple[object, ...], Value]()

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if node not in known:
            return new.add(node.op, *inputs, path=node.path)
        numbers = np.ascontiguousarray(known[node], np.float32)
        key = (numbers.shape, hashlib.blake2b(numbers.data, digest_size=16).digest())
        if key not in held:
            path = node.path if isinstance(node.op, Constant) else f"{node.path}.constant"
            held[key] = rewriting.put(new, Constant(numbers.shape), (), path, {"": numbers})
        return held[key]

    return rewriting.done(network.graph.rebuild(make))


def _known(network: Network) -> dict[Node, Array]:
    """The numbers of the values that something which depends on the image reads."""
    numbers: dict[Node, Array] = {}
    for node in network.graph.live():
        if not node.type.batched and node.type.size <= LIMIT and all(x in numbers for x in node.inputs):
            found = node.op.value([numbers[x] for x in node.inputs], network.of(node))
            if found is not None:
                numbers[node] = found
    ends = set(network.graph.outputs.values())
    read = {x for node in network.graph.live() if node not in numbers for x in node.inputs}
    return {node: found for node, found in numbers.items() if node in read or node in ends}


fold = Pass("fold_constants", fold_constants)
