"""Fold constant factors into the weights of the linear before them.

    scale of the logits, q being channels of a linear    ->  those rows of the linear times the scale
    layer_scale(linear(x))                               ->  linear'(x), its rows times gamma

Softmax's q is then scaled before the first product, the form that runtimes recognise when they fuse attention, and fp16
logits stay small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ir.op import Op
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import LayerScale
from archdsl.ops.tokens import Reorder, Slice
from archdsl.passes.network import Array, Network, Rewriting
from archdsl.passes.runner import Pass
from archdsl.passes.uses import Uses


def fold_scales(network: Network) -> Network:
    """The same function with factors moved into the linears before them."""
    import numpy as np

    uses, factors, gone = Uses(network.graph), dict[Node, Array](), set[Node]()
    for node in network.graph.live():
        rows: WeightRows | None = None
        factor: Array | float = 1.0
        if isinstance(node.op, Attention) and node.op.scale != 1:
            rows, factor = rows_behind(node.inputs[0], uses), node.op.scale
        elif isinstance(node.op, LayerScale):
            source = uses.only_linear_before(node, through_padding=True)
            rows, factor = WeightRows(source) if source else None, network.of(node)[""]
        if rows is not None:
            num_rows = rows.of.op.tensors()["weight"].shape[0]
            factors.setdefault(rows.of, np.ones(num_rows))[rows.start : rows.stop] *= factor
            gone.add(node)
    rewriting = Rewriting(network)

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if node in factors:
            by_row = factors[node].astype(np.float32)
            tensors = {
                key: numbers * by_row.reshape(-1, *[1] * (numbers.ndim - 1))
                for key, numbers in network.of(node).items()
            }
            return rewriting.put(new, node.op, inputs, node.path, tensors)
        if node in gone:
            if not isinstance(node.op, Attention):
                return inputs[0]
            return new.add(replace(node.op, scale=1.0), *inputs, path=node.path)
        return new.add(node.op, *inputs, path=node.path)

    return rewriting.done(network.graph.rebuild(make))


@dataclass(frozen=True)
class WeightRows:
    """Rows start, …, stop - 1 of a linear's weight."""

    of: Node
    start: int = 0
    stop: int | None = None


def rows_behind(x: Value, uses: Uses) -> WeightRows | None:
    """The rows of a linear that make nothing but `x`, which is read once; maybe cut out and reordered on the way."""
    while isinstance(x.op, Reorder) and uses.has_single_use(x):
        x = x.inputs[0]
    if not uses.has_single_use(x):
        return None
    if isinstance(x.op, Linear):
        return WeightRows(x)
    if not isinstance(x.op, Slice):
        return None
    cut, source = x.op, x.inputs[0]
    if not isinstance(source.op, Linear) or uses.is_output(source):
        return None
    others = [other.op for other in uses.of(source) if other is not x]
    return WeightRows(source, cut.start, cut.stop) if all(_apart(cut, other) for other in others) else None


def _apart(cut: Slice, other: Op) -> bool:
    """Whether `other` is a slice that has no channel in common with `cut`."""
    return isinstance(other, Slice) and (other.stop <= cut.start or cut.stop <= other.start)


fold = Pass("fold_scales", fold_scales)
