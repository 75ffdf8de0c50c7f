"""Precisions: what people call them, the number format in the graph, and how much of the output they may cost.

A tolerance is the largest difference to fp32 PyTorch that still counts as the same network, as a share of the largest
output, and the least cosine between the outputs of one image. They leave room for depth: rounding of 2^-11 (fp16) and
2^-8 (bf16) adds up over a few hundred ops.
"""

from __future__ import annotations

from dataclasses import dataclass

from archdsl.errors import BackendError
from archdsl.ir.types import DType


@dataclass(frozen=True)
class Precision:
    """name: `fp32`, `fp16`, `bf16` or `int8`; dtype: of most values in the graph; what the numeric gate allows."""

    name: str
    dtype: DType
    tolerance: float
    cosine: float


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", "f32", 1e-4, 0.999_999),
        Precision("fp16", "f16", 2e-2, 0.999),
        Precision("bf16", "bf16", 1e-1, 0.99),
        Precision("int8", "f32", 5e-1, 0.95),
    )
}


def precision_named(name: str) -> Precision:
    """The precision called `name`. Raises: BackendError when there is none."""
    if name not in PRECISIONS:
        message = f"a precision is one of {', '.join(PRECISIONS)}, got {name!r}"
        raise BackendError.at("--precision", name, "unknown-name", message, "use fp32")
    return PRECISIONS[name]
