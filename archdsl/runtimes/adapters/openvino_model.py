"""An .onnx file as a compiled model of OpenVINO: shared by the runtime and its profiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archdsl.failures import failed
from archdsl.runtimes.protocol import RunConfig
from archdsl.signal_stack import kept_signal_stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact

PRECISIONS: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
"""Our names of the precisions that the plug-in computes in, and OpenVINO's."""


def model_of(artefact: Artefact, config: RunConfig) -> Any:
    """The artefact as OpenVINO reads it, its shape fixed at the target's batch.

    Raises: MeasureError (`wrong-artefact`) when the file's input is not the promised one
    """
    import openvino

    model = openvino.Core().read_model(str(artefact.path))
    shape = [config.batch, *artefact.input_shape]
    if len(model.inputs) != 1 or model.inputs[0].element_type != openvino.Type.f32:
        got = ", ".join(f"{value.any_name}: {value.element_type}" for value in model.inputs) or "none"
        raise failed("wrong-artefact", f"one fp32 input is needed, the model has {got}", where="openvino")
    if not model.inputs[0].partial_shape.compatible(openvino.PartialShape(shape)):
        message = f"the input must be {shape}, the model has {model.inputs[0].partial_shape}"
        raise failed("wrong-artefact", message, where="openvino")
    model.reshape(shape)
    return model


def compiled(model: Any, config: RunConfig, **properties: Any) -> Any:
    """The model compiled for one stream of the target's threads.

    Raises: MeasureError (`wrong-artefact`) when this processor has no arithmetic of the target's precision: OpenVINO
    itself would silently compute in fp32
    """
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": config.threads,
        "ENABLE_CPU_PINNING": False,  # the worker has pinned its threads already
        "INFERENCE_PRECISION_HINT": PRECISIONS[config.precision],
        **properties,
    }
    with kept_signal_stack():
        found = openvino.Core().compile_model(model, "CPU", options)
    check_precision(config.precision, found.get_property("INFERENCE_PRECISION_HINT").to_string())
    return found


def check_precision(asked: str, got: str) -> None:
    """Raises: MeasureError (`wrong-artefact`) when `got`, what OpenVINO computes in, is not the precision `asked`."""
    if got != PRECISIONS[asked]:
        message = f"this processor computes in {got} where {asked} was asked for"
        hint = "bf16 needs a processor with AVX-512 BF16 or AMX; use fp32"
        raise failed("wrong-artefact", message, where="openvino", hint=hint)


def bind_input(request: Any, x_BX: NDArray[Any]) -> NDArray[Any]:
    """Let a request read its input from the caller's memory.

    Returns: the array that is read: a copy of `x_BX` where that is read-only, since OpenVINO shares memory only where
        it may write. The request holds the memory, not the array, so the array must live as long as runs may read it
    """
    import openvino

    bound = x_BX if x_BX.flags.writeable else x_BX.copy()
    request.set_input_tensor(openvino.Tensor(bound, shared_memory=True))
    return bound
