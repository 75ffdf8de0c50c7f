"""The network's input, numbers that are known while emitting, and casts."""

from __future__ import annotations

import onnx_ir as ir

from archdsl.backends.onnx.graph import DTYPES, Emission, Emitters
from archdsl.ir.graph import Input
from archdsl.ops.values import Cast, Constant

EMITTERS: Emitters = {
    Input: lambda e, op: ir.Value(name=e.node.path),
    Constant: Emission.known,
    Cast: lambda e, op, x: e.op("Cast", x, to=DTYPES[op.to]),
}
