"""A runtime as somebody would add it: the reference evaluator of the ONNX package."""

from __future__ import annotations

from typing import ClassVar

from archdsl.runtimes.protocol import Runtime, library_version


class ReferenceNetwork:
    """A network that numpy runs, node by node."""

    known_ms = None

    def __init__(self, path):
        from onnx.reference import ReferenceEvaluator

        self.evaluator = ReferenceEvaluator(path)
        (self.input,) = self.evaluator.input_names

    def outputs(self, x_BX):
        return self.evaluator.run(None, {self.input: x_BX})

    def timed(self, x_BX):
        return lambda: self.outputs(x_BX)


class OnnxReference(Runtime):
    name = "onnx-reference"
    kinds = ("onnx",)
    precisions: ClassVar = {"cpu": ("fp32",)}
    modules = ("onnx.reference",)

    def version(self):
        return library_version(self.name, ("onnx",), bring="pip install onnx")

    def device_name(self, device):
        return "numpy"

    def load(self, artefact, config):
        return ReferenceNetwork(str(artefact.path))


RUNTIME = OnnxReference()
