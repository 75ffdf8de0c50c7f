"""int8 by explicit quantize / dequantize pairs, with ranges measured on real images. ONNX Runtime's quantizer does it.

Weights are int8 by output channel, activations int8 by tensor, both symmetric, which every runtime with int8 kernels
takes (TensorRT takes no other). What is quantized are the linears of the blocks: they multiply int8 and give fp32.
Attention's products, norms, softmax, sums, the classifier and convolutions stay fp32.

Measured on trained micro networks: rounding what linears give too costs 2 to 9 times the error; convolutions in int8
gain no accuracy, and without rounding what they give ONNX Runtime runs them several times slower than fp32. Ranges from
percentiles or entropy are no better than minimum and maximum.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from archdsl.backends.initial import Array
from archdsl.backends.onnx.file import num_weight_bytes, write
from archdsl.backends.onnx.library import import_onnxruntime
from archdsl.backends.onnx.opsets import USUAL
from archdsl.backends.onnx.quantize.linears import linears, num_axes, quantize_problem, remove_unused_tensors

EXTERNAL_BYTES = 1_000_000_000
"""Above this the quantizer keeps tensors in a second file: protobuf holds 2 GiB, and it holds them twice."""


def quantize_int8(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str],
    batches: Iterable[Array],
) -> None:
    """Write the fp32 ONNX file `model` to `path` in int8, metadata and all. The file appears whole or not at all.

    batches: real images [B, C, H, W] as the network takes them; B must fit a static batch axis
    Raises: BackendError when onnxruntime's quantizer is missing, there are no images, or it refuses them
    """
    try:
        import_onnxruntime()
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise quantize_problem(
            "int8", "missing-library", f"int8 needs {error.name}", "pip install 'archdsl[ort]'"
        ) from error
    given = ir.load(model)
    names = [node.name for node in linears(given.graph, "int8")]
    reader = _Reader(str(given.graph.inputs[0].name), batches)
    with tempfile.TemporaryDirectory(prefix="archdsl-int8-") as folder:
        made = Path(folder) / "int8.onnx"
        try:
            with _silence():
                quantize_static(
                    os.fspath(model),
                    str(made),
                    reader,
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=["MatMul"],
                    nodes_to_quantize=names,
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                    use_external_data_format=num_weight_bytes(given) > EXTERNAL_BYTES,
                    extra_options={
                        "ActivationSymmetric": True,
                        "WeightSymmetric": True,
                        "OpTypesToExcludeOutputQuantization": ["MatMul"],
                    },
                )
        except Exception as error:  # the quantizer raises whatever its steps raise
            if reader.asked and reader.count == 0:
                raise quantize_problem(
                    "int8", "missing-key", "int8 needs images to calibrate with, got none", "give images"
                ) from error
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            opset = given.opset_imports[""]
            hint = (
                None if reader.asked or opset <= USUAL else f"use --opset {USUAL}: onnxruntime may not know {opset} yet"
            )
            raise quantize_problem("int8", "cannot-build", f"the quantizer failed: {reason}", hint) from error
        quantized = ir.load(made)
        quantized.producer_name, quantized.producer_version = given.producer_name, given.producer_version
        quantized.metadata_props.clear()
        quantized.metadata_props.update(given.metadata_props)
        _spare_other_readers(quantized.graph, set(names))
        _keep_biases_apart(quantized.graph)
        write(quantized, path)


def _spare_other_readers(graph: ir.Graph, names: Set[str]) -> None:
    """Let whatever is no linear read the value itself, where the quantizer gave it the rounded one.

    A value that both a linear and a residual sum read would otherwise be int8 all the way through the network.
    """
    for node in graph:
        rounded = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        maker = rounded.producer() if rounded else None
        if maker and maker.op_type == "QuantizeLinear":
            for reader, index in list(node.outputs[0].uses()):
                if reader.name not in names:
                    reader.replace_input_with(index, maker.inputs[0])


def _keep_biases_apart(graph: ir.Graph) -> None:
    """Give the biases of linears [B, N, C] the shape [1, 1, C].

    With the shape [C] ONNX Runtime first makes MatMul and Add one Gemm, for which it then has no int8 kernel.
    """
    for node in graph:
        product = node.inputs[0] if node.op_type == "Add" else None
        maker = product.producer() if product else None
        bias = node.inputs[1].const_value if maker and maker.op_type == "MatMul" else None
        if bias is not None and len(bias.shape) == 1 and num_axes(product) > 2:
            name = f"{node.inputs[1].name}.apart"
            if name not in graph.initializers:
                tensor = ir.Tensor(bias.numpy()[None, None], name=name)
                graph.register_initializer(ir.Value(name=name, const_value=tensor))
            node.replace_input_with(1, graph.initializers[name])
    remove_unused_tensors(graph)


class _Reader:
    """What the quantizer asks for its batches, in order, once. asked: whether it did; count: how many it was given"""

    def __init__(self, name: str, batches: Iterable[Array]):
        self.name, self.asked, self.count = name, False, 0
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the name of the model's input; None after the last."""
        return next(self, None)

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> dict[str, Any]:
        self.asked = True
        batch = next(self._batches)
        self.count += 1
        return {self.name: np.ascontiguousarray(batch, np.float32)}


@contextmanager
def _silence() -> Iterator[None]:
    """The quantizer prints, and warns through the root logger, to which it would add a handler for good."""
    handler, level = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        logging.root.removeHandler(handler)
