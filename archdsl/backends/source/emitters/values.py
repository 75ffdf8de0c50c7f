"""Number formats in plain PyTorch. A constant is made by deploying alone, so it has no emitter here."""

from __future__ import annotations

from archdsl.backends.source.writer import Emitter, Expression
from archdsl.ir.op import Op
from archdsl.ops.values import Cast

FORMATS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64"}


EMITTERS: dict[type[Op], Emitter] = {
    Cast: lambda w, node, op, x: Expression(f"{x.atom}.to(torch.{FORMATS[op.to]})", x.depth)
}
