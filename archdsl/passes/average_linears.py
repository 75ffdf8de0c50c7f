"""Two linears of one value whose results are averaged are one linear.

    average(linear_a(x), linear_b(x))  ->  linear(x), its weight and bias the means of theirs

The two heads of a LeViT, once their norms are folded: the mean of their answers is one product.
"""

from __future__ import annotations

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Average
from archdsl.passes.network import Network, Rewriting
from archdsl.passes.runner import Pass
from archdsl.passes.uses import Uses


def average_linears(network: Network) -> Network:
    """The same function; linears that nothing but their mean reads are one."""
    uses, rewriting = Uses(network.graph), Rewriting(network)
    means = {node for node in network.graph.live() if isinstance(node.op, Average) and _of_linears(node, uses)}
    pairs = {linear for mean in means for linear in mean.inputs}

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if node in pairs:
            return inputs[0]  # what the mean's linear multiplies
        if node not in means:
            return new.add(node.op, *inputs, path=node.path)
        first, second = node.inputs
        ours, theirs = network.of(first), network.of(second)
        tensors = {key: (ours[key].astype("float64") + theirs[key]) / 2 for key in ours}
        return rewriting.put(new, first.op, inputs[:1], first.path, tensors)

    return rewriting.done(network.graph.rebuild(make))


def _of_linears(mean: Node, uses: Uses) -> bool:
    first, second = mean.inputs
    return (
        isinstance(first.op, Linear)
        and isinstance(second.op, Linear)
        and first is not second
        and first.inputs == second.inputs
        and first.op.bias == second.op.bias
        and all(uses.has_single_use(linear) for linear in mean.inputs)
    )


average = Pass("average_linears", average_linears)
