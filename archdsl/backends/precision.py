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
    """A precision, and what the numeric gate allows.

    name: as people call it
    dtype: of most values in the graph
    tolerance, cosine: see above
    quantized: whether linears are stored narrower than the graph's values; such a network is made as ONNX only
    calibrated: whether the ranges of activations are taken from real images
    """

    name: str
    dtype: DType
    tolerance: float
    cosine: float
    quantized: bool = False
    calibrated: bool = False

    @property
    def narrow_in_fp16(self) -> bool:
        """Whether it quantizes fp16 values."""
        return self.quantized and self.dtype == "f16"

    @property
    def between(self) -> str:
        """The name of the float precision between quantized linears; of one that quantizes nothing, its own."""
        return next(each.name for each in PRECISIONS.values() if each.dtype == self.dtype and not each.quantized)


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", "f32", 1e-4, 0.999_999),
        Precision("fp16", "f16", 2e-2, 0.999),
        Precision("bf16", "bf16", 1e-1, 0.99),
        Precision("int8", "f32", 5e-1, 0.95, quantized=True, calibrated=True),
        Precision("int8-weights", "f16", 1e-1, 0.99, quantized=True),
        Precision("fp8", "f16", 5e-1, 0.95, quantized=True, calibrated=True),
    )
}


def precision_named(name: str) -> Precision:
    """The precision called `name`. Raises: BackendError when there is none."""
    if name not in PRECISIONS:
        message = f"a precision is one of {', '.join(PRECISIONS)}, got {name!r}"
        raise BackendError.at("--precision", name, "unknown-name", message, "use fp32")
    return PRECISIONS[name]
