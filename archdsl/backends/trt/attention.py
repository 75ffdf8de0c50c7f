"""Finding the attentions of an ONNX model: what a fused kernel has to compute all at once."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from archdsl.backends.trt.report import AttentionCore

_BETWEEN = ("Add", "Cast", "Mul", "Div", "Reshape", "Where", "Identity", "Dropout")
"""What may stand between an attention's products and its softmax: bias, mask, scale, a change of precision."""

_FAR = 6
"""How many of those at most."""


def read_model(model: bytes | Path) -> ir.Model:
    """The graph of an ONNX model. Numbers in other files stay there. Errors: any, when it is no ONNX model"""
    if isinstance(model, Path):
        return ir.from_proto(onnx.load(model, load_external_data=False))
    return ir.from_proto(onnx.load_model_from_string(model))


def attention_cores(model: ir.Model) -> tuple[AttentionCore, ...]:
    """Each attention: an `Attention` op, or a Softmax with the MatMuls before and after it."""
    cores = []
    for node in (node for node in model.graph if node.name):
        if node.op_type == "Attention":
            cores.append(AttentionCore(_path(node.name), (node.name,)))
        elif node.op_type == "Softmax":
            before, after = _product(node, up=True), _product(node, up=False)
            if before and after:
                cores.append(AttentionCore(_path(node.name), (before, node.name, after)))
    return tuple(cores)


def _path(name: str) -> str:
    """Our path in the name of an ONNX node, `path` or `path/OpType`; of other makers' names, the whole but its end."""
    return name.rsplit("/", 1)[0] if "/" in name else name


def _product(node: ir.Node, *, up: bool) -> str | None:
    """The name of the MatMul that feeds a Softmax, or that it feeds."""
    here: ir.Node | None = node
    for _ in range(_FAR):
        here = _before(here) if up else _after(here)
        if here is None:
            return None
        if here.op_type == "MatMul":
            return here.name or None
        if here.op_type not in _BETWEEN:
            return None
    return None


def _before(node: ir.Node) -> ir.Node | None:
    """The node that makes an input of this one; constants do not count."""
    makers = [value.producer() for value in node.inputs if value is not None]
    return next((maker for maker in makers if maker is not None and maker.op_type != "Constant"), None)


def _after(node: ir.Node) -> ir.Node | None:
    """The node that uses this one's output, if it is the only one."""
    uses = node.outputs[0].uses()
    return uses[0].node if len(uses) == 1 else None
