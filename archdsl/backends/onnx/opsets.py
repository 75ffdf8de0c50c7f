"""Which opsets are written, and what each of them knows. Since when ONNX has an op, the onnx package says.

The oldest is 13: there Softmax is over one axis, the sizes of a Split are an input, and weights may be quantized by
channel. An emitter asks `Emission.knows` for an op that came later, and writes it in older ops where it must:

    op                    since   before, in primitives
    HardSwish             14      x * HardSigmoid(x)
    LayerNormalization    17      mean and variance, in fp32
    ReduceMean's axes     18      an attribute; since then an input
    fp16 scales, fp8      19      refused
    Gelu                  20      with Erf or Tanh
    bfloat16 convolutions 22      refused
    Attention             23      two products around a softmax
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

OLDEST = 13
USUAL = 20
"""The first that has both LayerNormalization and Gelu as single ops, which all runtimes recognise."""
NARROW_IN_FP16_OLDEST = 19
BF16_OLDEST = 22
ATTENTION_OP = 23


def newest_opset() -> int:
    """The newest opset that the installed onnx knows."""
    from onnx.defs import onnx_opset_version

    return int(onnx_opset_version())


def opset_problem(opset: object, *, bf16: bool = False, narrow_in_fp16: bool = False) -> tuple[str, str] | None:
    """What is wrong with an opset, and a way out; None for one that can be written.

    bf16: whether there are bfloat16 values; narrow_in_fp16: whether fp16 values are quantized
    """
    oldest, newest, what, why = OLDEST, newest_opset(), "the onnx backend writes opsets", ""
    if bf16:
        oldest, what, why = BF16_OLDEST, "bf16 is written in opsets", "bf16 convolutions"
    elif narrow_in_fp16:
        oldest, what, why = NARROW_IN_FP16_OLDEST, "narrow formats in fp16 are written in opsets", "their scales"
    if type(opset) is int and oldest <= opset <= newest:
        return None
    why = why and f", because {why} came with {oldest}"
    nearest = newest if isinstance(opset, int) and opset > newest else oldest
    return f"{what} {oldest} to {newest} here{why}, but got {opset!r:.40}", f"use {nearest}"


def ir_version(opset: int) -> int:
    """The version of the ONNX file format that the opset came with: the oldest that may hold it, for old runtimes."""
    from onnx.helper import OP_SET_ID_VERSION_MAP

    return int(OP_SET_ID_VERSION_MAP["ai.onnx", opset])


@lru_cache(maxsize=1024)
def schema_of(op_type: str, opset: int) -> Any:
    """What the opset says of an op (`onnx.defs.OpSchema`); None when it has no such op."""
    from onnx import defs

    return defs.get_schema(op_type, opset, "") if defs.has(op_type, opset, "") else None


def since(op_type: str) -> int | None:
    """The opset with which an op came; None when onnx knows no such op."""
    return next((opset for opset in range(1, newest_opset() + 1) if schema_of(op_type, opset) is not None), None)
