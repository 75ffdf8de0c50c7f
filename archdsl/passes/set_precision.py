"""Number formats in the graph: every value fp16 or bf16 but for islands of fp32, with a `Cast` at each shore.

Runtimes no longer choose formats for a network (TensorRT 11 has no such flags), so the graph says them. Islands are

- norms and means (`Op.fp32_island`), which sum many numbers: their statistics overflow or lose digits in fp16;
- softmax and the sum before it, which `Attention` computes in fp32 whatever its q, k and v are;
- position biases and masks, which are part of that sum;
- whatever `keep` names, such as values whose range fp16 cannot hold.

The network's inputs and outputs stay fp32. Casts that are there already are set anew.
"""

from __future__ import annotations

from collections.abc import Set

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ir.types import DType
from archdsl.ops.values import Cast
from archdsl.passes.runner import Pass


def set_precision(graph: Graph, dtype: DType, keep: Set[str] = frozenset()) -> Graph:
    """The same function computed in `dtype`, apart from the islands and the nodes whose paths are in `keep`."""
    cast: dict[tuple[Value, DType], Value] = {}

    def held_in(new: Graph, x: Value, wanted: DType) -> Value:
        """`x` in the format `wanted`, cast once for all who ask."""
        if x.type.dtype == wanted or not x.type.batched:
            return x
        if (x, wanted) not in cast:
            cast[x, wanted] = new.add(Cast(wanted), x, path=f"{x.path}.{wanted}")
        return cast[x, wanted]

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if isinstance(node.op, Cast):
            return inputs[0]
        island = node.op.fp32_island or node.path in keep
        wanted: DType = "f32" if island else dtype
        inputs = tuple(held_in(new, x, wanted) for x in inputs)
        return new.add(node.op, *inputs, path=node.path)

    after = graph.rebuild(make)
    for name, value in after.outputs.items():
        after.output(name, held_in(after, value, "f32"))
    return after.without_dead_nodes()


def in_dtype(dtype: DType, keep: Set[str] = frozenset()) -> Pass:
    """The pass that computes in `dtype`."""
    return Pass.of_graph(f"set_precision({dtype})", lambda graph: set_precision(graph, dtype, keep))
