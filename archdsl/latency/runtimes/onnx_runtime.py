"""ONNX Runtime's CPU execution provider on an .onnx file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.latency.failure import failed
from archdsl.latency.machine import cpu_name
from archdsl.latency.runtimes.protocol import Profiler, library_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target


class Session:
    """An inference session with one input. Its threads sleep between runs instead of spinning."""

    known_ms: float | None = None

    def __init__(self, path: str, threads: int):
        self.path, self.threads = path, threads
        self.session = self._open()
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            got = ", ".join(f"{value.name}: {value.type}" for value in inputs) or "none"
            raise failed("wrong-artefact", f"one fp32 input is needed, the model has {got}", where="onnxruntime")
        self.input = inputs[0].name

    def _open(self, change: Callable[[Any], None] = lambda options: None) -> Any:
        """A session with our options, changed by `change`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        change(options)
        return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = self.session.run(None, {self.input: x_BX})
        return found

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        run, feed = self.session.run, {self.input: x_BX}
        return lambda: run(None, feed)

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        from archdsl.latency.runtimes.onnx_profile import SessionProfiler

        return SessionProfiler(Path(self.path), self._open, x_BX)


class OnnxRuntime:
    name = "onnxruntime"
    kinds: tuple[ArtefactKind, ...] = ("onnx",)
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32",)
    analytic = False
    bounded_memory = True

    def version(self) -> str:
        return library_version(self.name, ("onnxruntime", "onnxruntime-gpu"), bring="pip install 'archdsl[ort]'")

    def device_name(self, device: str) -> str:
        return cpu_name()

    def load(self, artefact: Artefact, target: Target) -> Session:
        return Session(str(artefact.path), target.threads)


RUNTIME = OnnxRuntime()
