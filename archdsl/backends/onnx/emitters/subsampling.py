"""Subsampled maps as one Gather, and biases by distance, which are known while emitting."""

from __future__ import annotations

import numpy as np

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.order import Raster
from archdsl.ops.subsampling import OffsetBias, Subsample


def _subsample(e: Emission, op: Subsample, x: Operand) -> Operand:
    order = e.node.inputs[0].type.order
    assert isinstance(order, Raster)
    return e.op("Gather", x, e.constant(np.array(op.places(order), np.int64), "index"), axis=e.lead)


EMITTERS: Emitters = {Subsample: _subsample, OffsetBias: Emission.known}
