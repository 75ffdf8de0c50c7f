"""Which nodes of an ONNX graph are linears inside the network: what all narrow formats quantize."""

from __future__ import annotations

import onnx_ir as ir

from archdsl.errors import BackendError


def linears(graph: ir.Graph, precision: str) -> list[ir.Node]:
    """The products of tokens [B, N, C] or [B * N, C] with a stored weight. Attention's and the classifier's are none.

    Raises: BackendError (`cannot-build`) when there are none
    """
    images = graph.inputs[0].shape
    batch = None if images is None else images[0]
    found = [
        node
        for node in graph
        if node.op_type == "MatMul" and node.inputs[1].const_value is not None and _has_tokens(node.outputs[0], batch)
    ]
    if not found:
        message = f"the network has no linears inside, so nothing can be {precision}"
        raise quantize_problem(precision, "cannot-build", message, "use fp16")
    return found


def num_axes(product: ir.Value) -> int:
    """How many axes a product has."""
    return len(_shape(product))


def _has_tokens(product: ir.Value, batch: object) -> bool:
    """Whether there is more than one row an image."""
    shape = _shape(product)
    return len(shape) > 2 or (len(shape) == 2 and isinstance(batch, int) and shape[0] != batch)


def _shape(product: ir.Value) -> tuple[object, ...]:
    """It, or the sum with its bias, says its shape."""
    known = (x.shape for x in (product, *(reader.outputs[0] for reader, _ in product.uses())) if x.shape is not None)
    return tuple(next(known, ()))


def remove_unused_tensors(graph: ir.Graph) -> None:
    """Remove the stored tensors that no node reads any more."""
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def quantize_problem(precision: str, rule: str, message: str, hint: str | None = None) -> BackendError:
    """What is wrong with a wish for this precision."""
    return BackendError.at("--precision", precision, rule, message, hint)
