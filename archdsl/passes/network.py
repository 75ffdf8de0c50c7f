"""A graph together with the numbers of its tensors: what passes take and give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ir.op import Op

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Weights: TypeAlias = "Mapping[str, Array]"


@dataclass(frozen=True)
class Network:
    """A graph, and an array for each of its tensors by full name (`stages.0.blocks.0.mlp.fc1.weight`).

    Passes that only move things around look at the graph alone; for them the weights may be empty.
    """

    graph: Graph
    weights: Weights = field(default_factory=lambda: MappingProxyType({}))

    def of(self, node: Node) -> dict[str, Array]:
        """The numbers of the node's tensors by their short names (`weight`, `bias`)."""
        return {key: self.weights[node.tensor_name(key)] for key in node.op.tensors()}

    def fitted(self, graph: Graph, weights: Weights) -> Network:
        """`graph` with those of `weights` that it has tensors for."""
        return Network(graph, {name: weights[name] for name in graph.tensors()})


class Rewriting:
    """A network under reconstruction: what a pass needs to replace an op together with its numbers."""

    def __init__(self, network: Network):
        self.network = network
        self.weights = dict(network.weights)

    def put(self, g: Graph, op: Op, inputs: tuple[Value, ...], path: str, tensors: Mapping[str, Array]) -> Value:
        """Add `op` at `path` with these numbers for its tensors, float32."""
        import numpy as np

        value = g.add(op, *inputs, path=path)
        for key, numbers in tensors.items():
            self.weights[value.tensor_name(key)] = np.asarray(numbers, np.float32)
        return value

    def done(self, graph: Graph) -> Network:
        """`graph` with the numbers of its tensors, new and old."""
        return self.network.fitted(graph, self.weights)
