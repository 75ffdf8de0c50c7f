"""OpenVINO's CPU plug-in on an .onnx file. The file stays fp32; the plug-in computes in the target's precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.latency.clock.machine import cpu_name
from archdsl.latency.failure import failed
from archdsl.latency.runtimes.protocol import Profiler, Runtime, library_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class Request:
    """A compiled model with one request that is used again and again; its input is the caller's memory, not a copy."""

    known_ms: float | None = None

    def __init__(self, artefact: Artefact, target: Target, **properties: Any):
        self.compiled = compiled(model_of(artefact, target), target, **properties)
        self.request = self.compiled.create_infer_request()
        self._profiler = artefact, target

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
        from archdsl.latency.runtimes.openvino_profile import RequestProfiler

        return RequestProfiler(*self._profiler, x_BX)

    def _feed(self, x_BX: NDArray[Any]) -> None:
        import openvino

        if not x_BX.flags.writeable:  # OpenVINO shares memory only where it may write
            x_BX = x_BX.copy()
        self._x_BX = x_BX  # the request holds the memory, not the array: it must live as long as runs may read it
        self.request.set_input_tensor(openvino.Tensor(x_BX, shared_memory=True))


def model_of(artefact: Artefact, target: Target) -> Any:
    """The artefact as OpenVINO reads it, its shape fixed at the target's batch.

    Errors: MeasureError (`wrong-artefact`) when the file's input is not the promised one
    """
    import openvino

    model = openvino.Core().read_model(str(artefact.path))
    shape = [target.batch, *artefact.input_shape]
    if len(model.inputs) != 1 or model.inputs[0].element_type != openvino.Type.f32:
        got = ", ".join(f"{value.any_name}: {value.element_type}" for value in model.inputs) or "none"
        raise failed("wrong-artefact", f"one fp32 input is needed, the model has {got}", where="openvino")
    if not model.inputs[0].partial_shape.compatible(openvino.PartialShape(shape)):
        message = f"the input must be {shape}, the model has {model.inputs[0].partial_shape}"
        raise failed("wrong-artefact", message, where="openvino")
    model.reshape(shape)
    return model


def compiled(model: Any, target: Target, **properties: Any) -> Any:
    """The model compiled for one stream of the target's threads.

    Errors: MeasureError (`wrong-artefact`) when this processor has no arithmetic of the target's precision: OpenVINO
    itself would silently compute in fp32
    """
    import openvino

    found = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": target.threads,
            "ENABLE_CPU_PINNING": False,  # the worker has pinned its threads already
            "INFERENCE_PRECISION_HINT": PRECISIONS[target.precision],
            **properties,
        },
    )
    check_precision(target.precision, found.get_property("INFERENCE_PRECISION_HINT").to_string())
    return found


def check_precision(asked: str, got: str) -> None:
    """Errors: MeasureError (`wrong-artefact`) when `got`, what OpenVINO computes in, is not the precision `asked`."""
    if got != PRECISIONS[asked]:
        message = f"this processor computes in {got} where {asked} was asked for"
        hint = "bf16 needs a processor with AVX-512 BF16 or AMX; use fp32"
        raise failed("wrong-artefact", message, where="openvino", hint=hint)


class OpenVino(Runtime):
    name = "openvino"
    kinds: tuple[ArtefactKind, ...] = ("onnx",)
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": tuple(PRECISIONS)}
    typed = False
    modules = ("openvino",)

    def version(self) -> str:
        return library_version(self.name, ("openvino",), bring="pip install 'archdsl[openvino]'")

    def device_name(self, device: str) -> str:
        return cpu_name()

    def load(self, artefact: Artefact, target: Target) -> Request:
        return Request(artefact, target)


RUNTIME = OpenVino()
