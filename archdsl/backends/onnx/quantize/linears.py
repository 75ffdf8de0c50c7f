"""Which nodes of an ONNX graph are linears inside the network: what all narrow formats quantize."""

from __future__ import annotations

import onnx_ir as ir

from archdsl.errors import BackendError


def linears(graph: ir.Graph, precision: str) -> list[ir.Node]:
    """The products [B, N, C] x [C, D] with a stored weight. Attention's products and the classifier are none.

    Raises: BackendError (`cannot-build`) when there are none
    """
    found = [
        node
        for node in graph
        if node.op_type == "MatMul" and node.inputs[1].const_value is not None and num_axes(node.outputs[0]) > 2
    ]
    if not found:
        message = f"the network has no linears inside, so nothing can be {precision}"
        raise quantize_problem(precision, "cannot-build", message, "use fp16")
    return found


def num_axes(value: ir.Value) -> int:
    """How many axes a product has: it, or the sum with its bias, says its shape."""
    known = (x.shape for x in (value, *(reader.outputs[0] for reader, _ in value.uses())) if x.shape is not None)
    return len(next(known, ()))


def remove_unused_tensors(graph: ir.Graph) -> None:
    """Remove the stored tensors that no node reads any more."""
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def quantize_problem(precision: str, rule: str, message: str, hint: str | None = None) -> BackendError:
    """What is wrong with a wish for this precision."""
    return BackendError.at("--precision", precision, rule, message, hint)
