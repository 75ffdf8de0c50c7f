"""Swin-Free's own way of counting (its Table 6): the unit costs of onnx-tool, and expanded biases as parameters.

It is a second, named convention. `Cost.macs` and `Cost.params` are what people mean by MACs and parameters. Each op
says its own costs (`Op.onnx_tool_flops`, `Op.onnx_tool_params`); here they are added up.

Unit costs per output element, of an opset-13 export in which LayerNorm and GELU are made of small ops: a product of
matrices its MACs, every addition (biases too), subtraction and product 1, a division 2, Pow 32, Sqrt 4, Softmax 18,
ReduceMean 1 per input element, global average pool its length + 2, batch norm and data movement 0. "Parameters" are
the export's initialisers: weights, with each relative position table expanded to its full bias, and the shift masks;
all-one and all-zero vectors are merged by the exporter and so not counted.

Source: arXiv 2306.13776, Table 6; onnx-tool at commit f9913ee (February 2023).
"""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.ir.graph import Graph, Node
from archdsl.ops.pointwise import Add


def onnx_tool_flops(graph: Graph) -> int | None:
    """FLOPs of one image by onnx-tool's unit costs; None when the graph has an op the convention does not define."""
    total = 0
    for node in graph.live():
        if node.type.batched:
            cost = node.op.onnx_tool_flops([x.type for input in node.inputs for x in _terms(input)], node.type)
            if cost is None:
                return None
            total += cost
    return total


def _terms(value: Node) -> Iterator[Node]:
    """The value; the terms of a sum that does not depend on the image, which the export adds one after another."""
    if isinstance(value.op, Add) and not value.type.batched:
        for x in value.inputs:
            yield from _terms(x)
    else:
        yield value


def onnx_tool_params(graph: Graph) -> int:
    """Numbers in the initialisers of the export; equal constants (masks) are one initialiser."""
    constants = {node.op: size for node in graph.live() if (size := node.op.constants())}
    return sum(constants.values()) + sum(node.op.onnx_tool_params(node.type) for node in graph.live())
