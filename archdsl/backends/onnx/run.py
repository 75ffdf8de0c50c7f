"""Running an ONNX file once, to see that it computes what it should. Latencies are taken elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from archdsl.backends.initial import Array
from archdsl.backends.onnx.library import cpu_session, import_onnxruntime
from archdsl.backends.parity import as_one, in_batches
from archdsl.errors import BackendError
from archdsl.signal_stack import kept_signal_stack

Run = Callable[[Array], Array]


class NoRuntime(BackendError):
    """No runtime is installed that knows the precision, so nothing is known about the file."""


def run_onnx(
    path: str | os.PathLike[str], images: Array, precision: str = "fp32", outputs: Sequence[str] | None = None
) -> tuple[str, Array]:
    """Name of the runtime that ran the file, and its first output for images [N, C, H, W].

    outputs: the names of several, which are then put side by side (`parity.as_one`)

    A model of a dynamic batch is run at two batch sizes. ONNX Runtime's CPU provider is asked first, then OpenVINO.
    Raises: NoRuntime; BackendError (`cannot-run`) with each runtime's reason when none of those installed runs it
    """
    able = {"onnxruntime": _by_onnxruntime, "openvino": _by_openvino}
    if precision == "bf16":
        del able["onnxruntime"]  # its CPU provider has no bf16 kernels
    reasons = []
    for name, run in able.items():
        if find_spec(name) is not None:
            try:
                return name, run(os.fspath(path), images, outputs)
            except Exception as error:  # the runtimes have no common error
                reasons.append(f"{name}: {_first_line(error)}")
    if not reasons:
        message = f"no runtime for {precision} is installed: {' or '.join(able)}"
        extra = "ort" if "onnxruntime" in able else "openvino"
        raise NoRuntime.at("onnx", os.fspath(path), "missing-library", message, f"pip install 'archdsl[{extra}]'")
    message = f"no runtime here can run {os.path.basename(path)}: {'; '.join(reasons)}"
    hint = "this is a bug of archdsl or of the runtime"
    raise BackendError.at("onnx", os.fspath(path), "cannot-run", message, hint)


def answer_of(path: str | os.PathLike[str], runtime: str) -> Run:
    """What the file answers on the runtime that `run_onnx` named: images [N, C, H, W] -> its first output [N, …]."""
    run, batch = _OPEN[runtime](os.fspath(path), None)
    return run if batch is None else lambda images: in_batches(run, images, batch)


def _by_onnxruntime(path: str, images: Array, outputs: Sequence[str] | None) -> Array:
    run, batch = _open_onnxruntime(path, outputs)
    return in_batches(run, images, batch)


def _open_onnxruntime(path: str, outputs: Sequence[str] | None) -> tuple[Run, int | None]:
    """What runs one batch, and how many images that is; None for any number."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = cpu_session(path, options)
    (taken,) = session.get_inputs()
    batch = taken.shape[0] if isinstance(taken.shape[0], int) else None
    names = outputs or [session.get_outputs()[0].name]
    return lambda images: as_one(session.run(list(names), {taken.name: images})), batch


def _by_openvino(path: str, images: Array, outputs: Sequence[str] | None) -> Array:
    run, batch = _open_openvino(path, outputs)
    return in_batches(run, images, batch)


def _open_openvino(path: str, outputs: Sequence[str] | None) -> tuple[Run, int | None]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    batch = model.input(0).get_partial_shape()[0]
    with kept_signal_stack():
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ends = [compiled.output(name) for name in outputs] if outputs else [compiled.output(0)]

    def run(images: Array) -> Array:
        given = compiled(images)
        return as_one([given[end].copy() for end in ends])

    return run, batch.get_length() if batch.is_static else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


_OPEN = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}
