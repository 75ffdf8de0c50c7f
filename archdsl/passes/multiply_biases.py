"""Hold the biases of q, k and v among the weights of the linear that makes them.

    linear(x) + b  ->  linear'(x, 1)        W' = [W, b]

TensorRT fuses attention with whatever reads and writes it, and an addition in front of it takes that apart: q, k and v
are then each added to, cut and copied by a kernel of their own. A product with a constant channel leaves nothing to
add. The channels of ones are `WIDTH`, of which all but the first meet weights of zero, so that a row keeps its
alignment. Exact for every token, padding included, because the ones are appended right before the linear.
"""

from __future__ import annotations

from dataclasses import replace

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.norm import LayerNorm, LayerNormWithOnes
from archdsl.ops.tokens import AppendOnes, Reorder, Slice
from archdsl.ops.values import Cast
from archdsl.passes.network import Network, Rewriting
from archdsl.passes.runner import Pass
from archdsl.passes.uses import Uses

WIDTH = 8
"""Channels of fp16 that a tensor core loads at once."""


def multiply_biases(network: Network) -> Network:
    """The same function; a linear that attention alone reads adds no bias."""
    uses, rewriting = Uses(network.graph), Rewriting(network)

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if not isinstance(node.op, Linear) or not node.op.bias or not _only_attention_reads(node, uses):
            return new.add(node.op, *inputs, path=node.path)
        import numpy as np

        tensors = network.of(node)
        columns = np.pad(tensors["bias"][:, None], [(0, 0), (0, WIDTH - 1)])
        ones = _with_ones(new, inputs[0], node.path)
        op = replace(node.op, d_in=node.op.d_in + WIDTH, bias=False)
        return rewriting.put(new, op, (ones,), node.path, {"weight": np.concatenate([tensors["weight"], columns], 1)})

    return rewriting.done(network.graph.rebuild(make))


def _with_ones(new: Graph, x: Value, path: str) -> Value:
    """`x` and channels of ones; a plain norm before the linear makes them itself."""
    norm = x.inputs[0] if isinstance(x.op, Cast) else x
    if not isinstance(norm.op, LayerNorm) or norm.op.affine:
        return new.add(AppendOnes(WIDTH), x, path=f"{path}.ones")
    made = new.add(LayerNormWithOnes(norm.op.dim, WIDTH, norm.op.eps), *norm.inputs, path=f"{norm.path}.ones")
    return made if norm is x else new.add(x.op, made, path=f"{x.path}.ones")


def _only_attention_reads(node: Node, uses: Uses) -> bool:
    """Whether nothing but attention reads the value, maybe cut into slices or in another order."""
    if uses.is_output(node):
        return False
    return all(
        isinstance(user.op, Attention) or (isinstance(user.op, Slice | Reorder) and _only_attention_reads(user, uses))
        for user in uses.of(node)
    )


multiply = Pass("multiply_biases", multiply_biases)
