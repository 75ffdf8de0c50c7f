"""What kind of work a node is: the lines of the table that opens the Swin-Free paper.

`layout` is for what a runtime puts in by itself, a change of memory layout or number format (and for our own casts).
"""

from __future__ import annotations

from typing import Literal, get_args

from archdsl.ir.graph import Graph, Input, Node
from archdsl.ir.op import Op
from archdsl.latency.profile.op_names import KnownNames
from archdsl.ops import (
    Activation,
    Add,
    AddPosition,
    Affine,
    Attention,
    BatchNorm,
    Cast,
    Constant,
    Conv2d,
    Dropout,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    MeanPool,
    MergeGroups,
    PrependToken,
    RelativePositionBias,
    Reorder,
    ShiftMask,
    Slice,
    TakeToken,
    TokenAffine,
    TokenBatchNorm,
)

Kind = Literal["reorder", "norm", "activation", "attention", "linear", "convolution", "add", "other", "layout"]
KINDS: tuple[Kind, ...] = get_args(Kind)

KIND_OF: dict[type[Op], Kind] = {
    Input: "other",
    Linear: "linear",
    Conv2d: "convolution",
    LayerNorm: "norm",
    BatchNorm: "norm",
    TokenBatchNorm: "norm",
    Affine: "norm",
    TokenAffine: "norm",
    Activation: "activation",
    Add: "add",
    LayerScale: "add",
    AddPosition: "add",
    DropPath: "other",
    Dropout: "other",
    Reorder: "reorder",
    MergeGroups: "reorder",
    Slice: "other",
    PrependToken: "other",
    TakeToken: "other",
    MeanPool: "other",
    Attention: "attention",
    RelativePositionBias: "attention",
    ShiftMask: "attention",
    Constant: "other",
    Cast: "layout",
}
"""By op. Ops of plug-ins are `other`."""

FOLLOWERS = (Slice, Constant, Add)
"""Ops that are part of attention when all that reads them is: the cut into q, k and v, the sum of bias and mask."""


class Attribution:
    """From a runtime's names to the nodes of one graph and their kinds."""

    def __init__(self, graph: Graph):
        self.nodes = {node.path: node for node in graph.live()}
        self._known = KnownNames(self.nodes)
        self._kinds = kinds_of(graph)

    def node(self, name: str) -> Node | None:
        """The node whose path `name` is or begins with."""
        path = self._known.find(name)
        return None if path is None else self.nodes[path]

    def kind(self, node: Node) -> Kind:
        return self._kinds[node.path]


def kinds_of(graph: Graph) -> dict[str, Kind]:
    """The kind of each live node, by path."""
    found: dict[str, Kind] = {}
    readers: dict[str, list[Node]] = {node.path: [] for node in graph.live()}
    for node in reversed(graph.live()):
        kind = KIND_OF.get(type(node.op), "other")
        read_by = {found[reader.path] for reader in readers[node.path]}
        found[node.path] = "attention" if isinstance(node.op, FOLLOWERS) and read_by == {"attention"} else kind
        for x in node.inputs:
            readers[x.path].append(node)
    return found
