"""Running an ONNX file once, to see that it computes what it should. Latencies are taken elsewhere."""

from __future__ import annotations

import os
from importlib.util import find_spec

from archdsl.backends.batches import in_batches
from archdsl.backends.initial import Array
from archdsl.errors import BackendError, Problem, at_argument


class NoRuntime(BackendError):
    """No runtime is installed that knows the precision, so nothing is known about the file."""


def run_onnx(path: str | os.PathLike[str], images: Array, precision: str = "fp32") -> tuple[str, Array]:
    """Name of the runtime that ran the file, and its first output for images [N, C, H, W].

    A model of a dynamic batch is run at two batch sizes. ONNX Runtime's CPU provider is asked first, then OpenVINO.
    Errors: NoRuntime; BackendError (`cannot-run`) with each runtime's reason when none of those installed runs it
    """
    able = {"onnxruntime": _by_onnxruntime, "openvino": _by_openvino}
    if precision == "bf16":
        del able["onnxruntime"]  # its CPU provider has no bf16 kernels
    reasons = []
    for name, run in able.items():
        if find_spec(name) is not None:
            try:
                return name, run(os.fspath(path), images)
            except Exception as error:  # the runtimes have no common error
                reasons.append(f"{name}: {_first_line(error)}")
    place, file = at_argument("onnx", os.fspath(path)), os.path.basename(path)
    if not reasons:
        message = f"no runtime for {precision} is installed: {' or '.join(able)}"
        extra = "ort" if "onnxruntime" in able else "openvino"
        raise NoRuntime(Problem(place, "missing-library", message, f"pip install 'archdsl[{extra}]'"))
    message = f"no runtime here can run {file}: {'; '.join(reasons)}"
    raise BackendError(Problem(place, "cannot-run", message, "this is a bug of archdsl or of the runtime"))


def _by_onnxruntime(path: str, images: Array) -> Array:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    batch = taken.shape[0] if isinstance(taken.shape[0], int) else None
    return in_batches(lambda piece: session.run(None, {taken.name: piece})[0], images, batch)


def _by_openvino(path: str, images: Array) -> Array:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    batch = model.input(0).get_partial_shape()[0]
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return in_batches(lambda piece: compiled(piece)[0].copy(), images, batch.get_length() if batch.is_static else None)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
