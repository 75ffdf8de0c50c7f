"""Swin-Free's own way of counting (its Table 6): the unit costs of onnx-tool, and expanded biases as parameters.

It is a second, named convention. `Cost.macs` and `Cost.params` are what people mean by MACs and parameters.

Unit costs per output element, of an opset-13 export in which LayerNorm and GELU are made of small ops: a product of
matrices its MACs, every addition (biases too), subtraction and product 1, a division 2, Pow 32, Sqrt 4, Softmax 18,
ReduceMean 1 per input element, global average pool its length + 2, batch norm and data movement 0. "Parameters" are
the export's initialisers: weights, with each relative position table expanded to its full bias, and the shift masks;
all-one and all-zero vectors are merged by the exporter and so not counted.

Source: arXiv 2306.13776, Table 6; onnx-tool at commit f9913ee (February 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.ir.graph import Graph, Input, Node
from archdsl.ops import (
    Activation,
    Add,
    Attention,
    BatchNorm,
    Conv2d,
    DropPath,
    LayerNorm,
    Linear,
    MeanPool,
    MergeGroups,
    RelativePositionBias,
    Reorder,
    ShiftMask,
    Slice,
    TokenBatchNorm,
)

SOFTMAX = 18
LAYER_NORM_PER_ELEMENT, LAYER_NORM_PER_TOKEN = 39, 5
ACTIVATION = {"gelu": 5, "relu": 1}


def onnx_tool_flops(graph: Graph) -> int | None:
    """FLOPs of one image by onnx-tool's unit costs; None when the graph has an op the convention does not define."""
    costs = [FLOPS[type(n.op)](n) if type(n.op) in FLOPS else None for n in graph.live() if n.type.batched]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def onnx_tool_params(graph: Graph) -> int:
    """Numbers in the initialisers of the export; equal masks are one initialiser."""
    masks = {node.op: node.type.size for node in graph.live() if isinstance(node.op, ShiftMask)}
    total = sum(masks.values())
    for node in graph.live():
        if isinstance(node.op, RelativePositionBias):
            total += node.type.size
        elif isinstance(node.op, Linear | Conv2d):
            total += node.op.tensors()["weight"].size
    return total


def _linear(node: Node) -> int:
    """A product of matrices and, if there is one, the addition of the bias."""
    op: Linear | Conv2d = node.op  # type: ignore[assignment]
    return node.cost().macs + (node.type.size if op.bias else 0)


def _attention(node: Node) -> int:
    """Scale q, two products, add each term of the bias, softmax."""
    op: Attention = node.op  # type: ignore[assignment]
    q, k, _, *bias = node.inputs
    logits = op.heads * q.type.tokens * (k.type.tokens // (q.type.order.num_windows if q.type.order else 1))
    return q.type.size + node.cost().macs + logits * (SOFTMAX + sum(_terms(b) for b in bias))


def _terms(bias: Node) -> int:
    """How many values are added to the logits one after another."""
    return sum(_terms(x) for x in bias.inputs) if isinstance(bias.op, Add) else 1


def _activation(node: Node) -> int:
    op: Activation = node.op  # type: ignore[assignment]
    return ACTIVATION.get(op.name, 5) * node.type.size


FLOPS: dict[type[Any], Callable[[Node], int]] = {
    Input: lambda node: 0,
    Linear: _linear,
    Conv2d: _linear,
    Attention: _attention,
    Activation: _activation,
    LayerNorm: lambda node: LAYER_NORM_PER_ELEMENT * node.type.size + LAYER_NORM_PER_TOKEN * node.type.tokens,
    BatchNorm: lambda node: 0,
    TokenBatchNorm: lambda node: 0,
    Add: lambda node: node.type.size,
    MeanPool: lambda node: (node.inputs[0].type.tokens + 2) * node.type.size,
    DropPath: lambda node: 0,
    Reorder: lambda node: 0,
    MergeGroups: lambda node: 0,
    Slice: lambda node: 0,
}
