"""OpenVINO's CPU plug-in on an .onnx file. The file stays fp32; the plug-in computes in the target's precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.runtimes.adapters.openvino_model import PRECISIONS, bind_input, compiled, model_of
from archdsl.runtimes.protocol import Profiler, RunConfig, Runtime, library_version
from archdsl.telemetry.cpu import cpu_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact, ArtefactKind


class Request:
    """A compiled model with one request that is used again and again; its input is the caller's memory, not a copy."""

    known_ms: float | None = None

    def __init__(self, artefact: Artefact, config: RunConfig, **properties: Any):
        self.compiled = compiled(model_of(artefact, config), config, **properties)
        self.request = self.compiled.create_infer_request()
        self._profiler = artefact, config

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        self._feed(x_BX)
        self.request.infer()
        return [tensor.data.copy() for tensor in self.request.output_tensors]

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        """The request keeps `x_BX`, so the same request must not be timed on two inputs at once."""
        self._feed(x_BX)
        run: Callable[[], object] = self.request.infer
        return run

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        from archdsl.runtimes.adapters.openvino_profile import RequestProfiler

        return RequestProfiler(*self._profiler, x_BX)

    def _feed(self, x_BX: NDArray[Any]) -> None:
        self._x_BX = bind_input(self.request, x_BX)


class OpenVino(Runtime):
    """OpenVINO on a CPU."""

    name = "openvino"
    kinds: tuple[ArtefactKind, ...] = ("onnx",)
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": tuple(PRECISIONS)}
    typed = False
    modules = ("openvino",)

    def version(self) -> str:
        return library_version(self.name, ("openvino",), bring="pip install 'archdsl[openvino]'")

    def device_name(self, device: str) -> str:
        return cpu_name()

    def load(self, artefact: Artefact, config: RunConfig) -> Request:
        return Request(artefact, config)


RUNTIME = OpenVino()
