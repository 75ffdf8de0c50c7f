"""Maps out of sequences as Slice."""

from __future__ import annotations

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ops.maps import TakeMap


def _take_map(e: Emission, op: TakeMap, x: Operand) -> Operand:
    stop = op.first + op.height * op.width
    return e.op("Slice", x, e.integers(op.first), e.integers(stop), e.integers(e.lead))


EMITTERS: Emitters = {TakeMap: _take_map}
