from __future__ import annotations

from archdsl.ops.toys import SquaredScale

from archdsl.backends.onnx.graph import Emission, Emitters, Operand


def emit_squared_scale(e: Emission, op: SquaredScale, x: Operand) -> Operand:
    return e.op("Mul", e.op("Mul", x, x), e.parameter())


EMITTERS: Emitters = {SquaredScale: emit_squared_scale}
