"""What an ONNX file says of itself: the image it takes, what it answers, its number formats and its metadata."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from archdsl.errors import BackendError, Problem, at_argument

_ROUNDED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearMatMul",
    "QLinearConv",
    "MatMulInteger",
    "ConvInteger",
    "DynamicQuantizeLinear",
}
_FP8 = {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}
_FORMATS = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


class UnreadableOnnx(BackendError):
    """The file is no ONNX model, or none of one image input."""

    exit_code = 1


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file of one image input.

    batch:       images at once; None where the axis is dynamic
    input_shape: [C, H, W] of an image; None for an axis that is dynamic
    outputs:     of the first output for one image; None where the file does not say it
    precision:   see `precision_of`
    """

    path: Path
    batch: int | None
    input_shape: tuple[int | None, ...]
    outputs: tuple[int | None, ...] | None
    precision: str
    metadata: Mapping[str, str]


def read_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """Read the model without the weights that lie in other files. Raises: UnreadableOnnx"""
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is not a regular file")
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common base with those of the file system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise _unreadable(file, f"it cannot be read as an ONNX model: {reason}") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or not model.graph.output:
        counts = f"{len(inputs)} inputs and {len(model.graph.output)} outputs"
        raise _unreadable(file, f"it has {counts}, but one input and its answer are needed")
    kind = inputs[0].type.tensor_type
    shape = _shape(inputs[0])
    if shape is None or len(shape) != 4 or kind.elem_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind.elem_type) if kind.elem_type else "no tensor"
        sides = None if shape is None else ", ".join("?" if side is None else str(side) for side in shape)
        got = "of unknown shape" if sides is None else f"[{sides}]"
        raise _unreadable(file, f"its input must be fp32 images [B, C, H, W], but is {name} {got}")
    output = _shape(model.graph.output[0])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return OnnxFile(file, shape[0], shape[1:], output[1:] if output else None, precision_of(model), metadata)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The sizes of all axes, None for a dynamic one; None where the file says nothing."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in tensor.shape.dim
    )


def precision_of(model: onnx.ModelProto) -> str:
    """`fp8`, `int8-weights` or `int8` where anything is quantized, else the format that most weights have.

    With `int8-weights` nothing is rounded when the model runs: stored int8 tensors are dequantized.
    """
    if any(tensor.data_type in _FP8 for tensor in model.graph.initializer):
        return "fp8"
    rounded = {node.op_type for node in model.graph.node if node.op_type in _ROUNDED}
    if rounded:
        return "int8-weights" if rounded == {"DequantizeLinear"} else "int8"
    numbers: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, *_FORMATS):
            size = 1
            for side in tensor.dims:
                size *= side
            numbers[_FORMATS.get(tensor.data_type, "fp32")] += size
    return numbers.most_common(1)[0][0] if numbers else "fp32"


def _unreadable(file: Path, message: str) -> UnreadableOnnx:
    hint = "give an ONNX file that takes images, such as `archdsl build --emit onnx` writes"
    return UnreadableOnnx(Problem(at_argument(str(file), ""), "cannot-read", message, hint))
