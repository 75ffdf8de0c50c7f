"""The kernels of a finished engine, read from what the builder says of them while it works.

An engine built ahead of time cannot be inspected without a driver. But with `ProfilingVerbosity.DETAILED` the builder
logs each of its layers in one line (severity VERBOSE), in the fields of the engine inspector's JSON:

    Name: n, LayerType: t, Inputs: [ { Name: i, Dimensions: [1,49,96], ..., Datatype: Half, ... }], Constants: [...],
    Outputs: [...], TacticName: x, StreamId: 0, Metadata: [ONNX Layer: a/MatMul][ONNX Layer: b]

Seen in the logs of TensorRT for RTX 1.7. The engine itself is never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from archdsl.backends.trt.report import AttentionCore, Layer, Report, kind_of, report_of_layers

SIZE_BYTES = {
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "FP8": 1,
    "Int8": 1,
    "UInt8": 1,
    "Bool": 1,
    "Int32": 4,
    "Int64": 8,
    "INT4": 0.5,
    "Int4": 0.5,
}
"""Bytes of one number by the builder's name for its type."""

_HEAD = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), Inputs: ")
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([^\]]*)\].*?Datatype: (\w+)")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_PLACES = ("Inputs: [", "Constants: [", "Outputs: [", "TacticName: ", "StreamId: ", "Metadata: ")


@dataclass(frozen=True)
class Tensor:
    """A tensor that a kernel reads or writes. An axis of -1 has a size that is not known at the build."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Its bytes; 0 where an axis is open."""
        return int(max(0, prod(self.shape)) * SIZE_BYTES.get(self.dtype, 2)) if -1 not in self.shape else 0


@dataclass(frozen=True)
class Kernel:
    """One kernel of an engine.

    type:      the builder's word for how it was made: `gemm`, `kgen`, `runtime_fusion`, `correlation`, …
    constants: weights and tables that are in the engine
    origins:   the ONNX nodes that it computes, as far as the builder says
    """

    name: str
    type: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tactic: str = ""
    origins: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        """The same without shapes."""
        formats = tuple(dict.fromkeys(tensor.dtype for tensor in self.outputs))
        return Layer(self.name, self.type, kind_of(self.name, self.type, self.tactic), self.origins, formats)


def kernels_of(lines: Iterable[str]) -> tuple[Kernel, ...]:
    """The kernels in the log's lines, in their order. What is no description of a layer is left out, and so is the
    computing of shapes, which is the CPU's work."""
    found = (_kernel(line) for line in lines)
    return tuple(kernel for kernel in found if kernel is not None and kernel.type != "shape_call")


def report_of_log(kernels: Sequence[Kernel], cores: Sequence[AttentionCore] = ()) -> Report:
    """The report on an engine, as `report.report_of` gives it of an engine that was loaded."""
    return report_of_layers([kernel.layer for kernel in kernels], cores)


def _kernel(line: str) -> Kernel | None:
    head = _HEAD.match(line)
    if head is None:
        return None
    parts = dict(zip(_PLACES, _cut(line[head.end() - len("Inputs: ") :]), strict=True))
    inputs, constants, outputs = (_tensors(parts[place]) for place in _PLACES[:3])
    origins = tuple(dict.fromkeys(_ORIGIN.findall(parts["Metadata: "])))
    tactic = parts["TacticName: "].strip(" ,")
    return Kernel(head["name"], head["type"], inputs, constants, outputs, tactic, origins)


def _tensors(text: str) -> tuple[Tensor, ...]:
    found = _TENSOR.findall(text)
    return tuple(
        Tensor(name, tuple(int(size) for size in dims.split(",") if size.strip()), dtype) for name, dims, dtype in found
    )


def _cut(text: str) -> list[str]:
    """The text after each of `_PLACES`, up to the next; empty where one is missing."""
    starts = [text.find(place) for place in _PLACES]
    found = []
    for i, start in enumerate(starts):
        ends = [later for later in starts[i + 1 :] if later > start]
        found.append("" if start < 0 else text[start + len(_PLACES[i]) : min(ends, default=len(text))])
    return found
