"""fp8 and weight-only int8: quantize / dequantize pairs in an fp16 file, for GPUs whose compiler has such products.

`fp8` rounds what a linear reads and its weight to E4M3 (Micikevicius et al., 2022, arXiv:2209.05433): 4 bits of
exponent, 3 of mantissa, values to 448, one scale a tensor. Products then run on fp8 tensor cores (Ada, Blackwell).
`int8-weights` stores weights as int8 with one scale an output channel; the product itself is fp16. It saves memory,
and time where a batch is so small that reading weights is what takes it.

In both, everything between linears stays fp16, so attention is fused as in fp16. The classifier and convolutions stay
fp16 too. What each compiler makes of it was measured with TensorRT for RTX 1.7 on Swin-B, beside fp16's best form:

    fp8           SM89, batch 8: all linears 265 kernels, 1.93 GB, an estimated 2.36 ms; without q, k and v 2.60 ms,
                  without fc1 2.61; fp16 208, 1.84, 3.39. Its products take in neither bias nor activation
    int8-weights  SM86, batch 1: all linears 315 kernels, 0.391 GB, 1.82 ms; all but q, k and v 205, 0.359, 1.58; only
                  what sums read (projection, fc2, merging) 181, 0.337, 1.51; fp16 182, 0.366, 1.49
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir

from archdsl.backends.initial import Array
from archdsl.backends.onnx.file import write
from archdsl.backends.onnx.library import import_onnxruntime
from archdsl.backends.onnx.opsets import opset_problem
from archdsl.backends.onnx.quantize.linears import linears, quantize_problem, remove_unused_tensors

E4M3_MAX = 448.0
_SUMS = {"Add", "Cast", "LayerNormalization", "Gather", "Pad", "ReduceMean"}
INT8_MAX = 127.0


def quantize_fp8(model: str | os.PathLike[str], path: str | os.PathLike[str], batches: Iterable[Array]) -> None:
    """Write the fp16 ONNX file `model` to `path` with fp8 linears. The file appears whole or not at all.

    batches: real images [B, C, H, W] as the network takes them, whose largest values set the scales
    Raises: BackendError when onnxruntime is missing, there are no images, or a value in the network is not finite
    """
    file = _loaded(model, "fp8")
    nodes = [node for node in linears(file.graph, "fp8") if _is_fp16(node)]
    largest = _largest_values(file, {node.inputs[0] for node in nodes}, batches)
    rounded: dict[str, ir.Value] = {}
    for node in nodes:
        read, weight = node.inputs
        if read.name not in rounded:
            rounded[read.name] = _rounded_to_fp8(file.graph, node, read, largest[read.name])
        node.replace_input_with(0, rounded[read.name])
        numbers = weight.const_value.numpy().astype(np.float32)
        scale = _scale(np.abs(numbers).max(), E4M3_MAX)
        stored = np.clip(numbers / np.float32(scale), -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
        node.replace_input_with(1, _dequantized(file.graph, node, weight.name, stored, scale))
    _write(file, path)


def quantize_weights(model: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the fp16 ONNX file `model` to `path` with int8 weights in linears that only sums and norms read.

    The others would be dequantized, or followed by their activation, in a kernel of its own. The file appears whole or
    not at all.

    Raises: BackendError when the network has no linears
    """
    file = _loaded(model, "int8-weights")
    for node in linears(file.graph, "int8-weights"):
        if _is_fp16(node) and _only_sums_read(node):
            weight = node.inputs[1]
            numbers = weight.const_value.numpy().astype(np.float32)
            scale = _scale(np.abs(numbers).max(axis=0), INT8_MAX)
            stored = np.clip(np.rint(numbers / scale.astype(np.float32)), -INT8_MAX, INT8_MAX).astype(np.int8)
            node.replace_input_with(1, _dequantized(file.graph, node, weight.name, stored, scale, axis=1))
    _write(file, path)


def _loaded(model: str | os.PathLike[str], precision: str) -> ir.Model:
    """The model. Raises: BackendError where its opset is too old for the pairs"""
    file = ir.load(model)
    if wrong := opset_problem(file.opset_imports[""], narrow_in_fp16=True):
        raise quantize_problem(precision, "out-of-range", *wrong)
    return file


def _is_fp16(node: ir.Node) -> bool:
    """Not what stays fp32 because its values come near the end of fp16's range."""
    weight = node.inputs[1].const_value
    return weight is not None and weight.dtype == ir.DataType.FLOAT16


def _only_sums_read(node: ir.Node) -> bool:
    """Whether what reads the product, or its sum with the bias, is neither attention nor an activation."""
    (result,) = node.outputs
    readers = [reader for reader, _ in result.uses()]
    if [reader.op_type for reader in readers] == ["Add"]:
        readers = [reader for reader, _ in readers[0].outputs[0].uses()]
    return all(reader.op_type in _SUMS for reader in readers)


def _scale(largest: Array | float, most: float) -> Array:
    """Such that the largest value becomes the largest number of the format; 1 where all values are 0."""
    scale = np.asarray(largest, np.float32) / np.float32(most)
    return np.where(scale > 0, np.maximum(scale, np.finfo(np.float16).tiny), 1).astype(np.float16)


def _rounded_to_fp8(graph: ir.Graph, reader: ir.Node, value: ir.Value, largest: float) -> ir.Value:
    """`value` to fp8 and back, computed before `reader`."""
    scale = _tensor(graph, f"{value.name}.scale", _scale(largest, E4M3_MAX))
    zero = _tensor(graph, f"{value.name}.zero", np.zeros((), ml_dtypes.float8_e4m3fn))
    narrow = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}/QuantizeLinear")
    wide = ir.node("DequantizeLinear", [narrow.outputs[0], scale, zero], name=f"{value.name}/DequantizeLinear")
    graph.insert_before(reader, [narrow, wide])
    return wide.outputs[0]


def _dequantized(
    graph: ir.Graph, reader: ir.Node, name: str, stored: Array, scale: Array, axis: int | None = None
) -> ir.Value:
    """A weight that is stored in a narrow format, computed before `reader`."""
    inputs = [_tensor(graph, f"{name}.stored", stored), _tensor(graph, f"{name}.scale", scale)]
    attributes = {} if axis is None else {"axis": axis}
    node = ir.node("DequantizeLinear", inputs, attributes=attributes, name=f"{name}/DequantizeLinear")
    graph.insert_before(reader, node)
    return node.outputs[0]


def _tensor(graph: ir.Graph, name: str, numbers: Array) -> ir.Value:
    if name not in graph.initializers:
        graph.register_initializer(ir.Value(name=name, const_value=ir.Tensor(numbers, name=name)))
    return graph.initializers[name]


def _largest_values(file: ir.Model, values: set[ir.Value], batches: Iterable[Array]) -> Mapping[str, float]:
    """The largest magnitude that each value has on these images, by its name.

    Raises: BackendError when onnxruntime is missing, there are no images, or a value is not finite
    """
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        hint = "pip install 'archdsl[ort]'"
        raise quantize_problem("fp8", "missing-library", f"fp8 needs {error.name} to calibrate with", hint) from error
    names = sorted(value.name for value in values)
    answers = list(file.graph.outputs)
    (image,) = file.graph.inputs
    file.graph.outputs.extend(sorted(values - set(answers), key=lambda value: value.name))
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        model = ir.to_proto(file).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    finally:
        del file.graph.outputs[len(answers) :]
    largest = dict.fromkeys(names, -1.0)
    for batch in batches:
        given = {image.name: np.ascontiguousarray(batch, np.float32)}
        for name, found in zip(names, session.run(names, given), strict=True):
            largest[name] = max(largest[name], float(np.abs(found.astype(np.float32)).max()))
    if any(value < 0 for value in largest.values()):
        raise quantize_problem("fp8", "missing-key", "fp8 needs images to calibrate with, got none", "give images")
    for name, value in largest.items():
        if not np.isfinite(value):
            raise quantize_problem("fp8", "cannot-build", f"{name} is not finite on these images", "use fp16")
    return largest


def _write(file: ir.Model, path: str | os.PathLike[str]) -> None:
    remove_unused_tensors(file.graph)
    write(file, path)
