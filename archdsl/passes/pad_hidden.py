"""Keep the rows of a hidden layer from falling onto each other in the cache.

    linear_b(act(linear_a(x))), rows of 4096 k bytes  ->  the same, 16 channels wider

Places that are a multiple of 4096 bytes apart share a set of the first cache, which holds 8 or 12 of them. A product
that takes 12 rows at a time then reads from the second cache what it had in the first. The new channels are linear_a's
of zeros, and linear_b multiplies them by zeros: the result does not change.
"""

from __future__ import annotations

from dataclasses import replace

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Activation
from archdsl.passes.network import Array, Network, Rewriting
from archdsl.passes.runner import Pass
from archdsl.passes.uses import Uses

ALIASED = 4096 // 4
"""Channels of float32 after which rows meet again."""

EXTRA = 16
"""One cache line of float32, and one vector of AVX-512."""


def pad_hidden(network: Network) -> Network:
    """The same function with hidden layers that are a multiple of `ALIASED` channels wide made wider by `EXTRA`."""
    uses, rewriting = Uses(network.graph), Rewriting(network)
    pairs = [pair for node in network.graph.live() if (pair := _pair(node, uses))]
    first, second = {a for a, _ in pairs}, {b for _, b in pairs}

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if not isinstance(node.op, Linear) or node not in first | second:
            return new.add(node.op, *inputs, path=node.path)
        op, tensors = node.op, network.of(node)
        if node in first:
            op = replace(op, d_out=op.d_out + EXTRA)
            tensors = {key: _padded(numbers, 0) for key, numbers in tensors.items()}
        if node in second:
            op = replace(op, d_in=op.d_in + EXTRA)
            tensors |= {"weight": _padded(tensors["weight"], 1)}
        return rewriting.put(new, op, inputs, node.path, tensors)

    return rewriting.done(network.graph.rebuild(make))


def _pair(node: Node, uses: Uses) -> tuple[Node, Node] | None:
    """The linears before and after the activation `node`, if it is one between two and nothing else reads it."""
    if not isinstance(node.op, Activation) or not uses.has_single_use(node):
        return None
    before, after = node.inputs[0], uses.of(node)[0]
    if not isinstance(before.op, Linear) or not isinstance(after.op, Linear) or not uses.has_single_use(before):
        return None
    return (before, after) if before.op.d_out % ALIASED == 0 else None


def _padded(numbers: Array, axis: int) -> Array:
    import numpy as np

    return np.pad(numbers, [(0, EXTRA if i == axis else 0) for i in range(numbers.ndim)])


pad = Pass("pad_hidden", pad_hidden)
