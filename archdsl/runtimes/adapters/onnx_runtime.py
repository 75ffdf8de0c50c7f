"""ONNX Runtime's CPU and CUDA execution providers on an .onnx file, whose types are its precision.

fp16 on a CPU is the fp16 file as it is run there: on x86 the provider has no fp16 arithmetic, and puts casts around
products that it computes in fp32, so such a file is slower than one in fp32. bf16 it cannot run at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.backends.onnx.library import cpu_session, import_onnxruntime
from archdsl.failures import failed
from archdsl.runtimes.protocol import LoadedNetwork, Profiler, RunConfig, Runtime, library_version
from archdsl.telemetry.cpu import cpu_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact, ArtefactKind

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
BRING = {
    "CPUExecutionProvider": "pip install 'archdsl[ort]'",
    "CUDAExecutionProvider": "pip uninstall onnxruntime && pip install onnxruntime-gpu",
    "TensorrtExecutionProvider": "pip uninstall onnxruntime && pip install onnxruntime-gpu tensorrt",
}
"""The command that installs a provider that the installed library lacks."""

LEFT_TO_CPU = "fallback to CPU EP has been explicitly disabled"
"""The library's message when a provider does not run all nodes and the CPU may not run the rest."""


class Session:
    """An inference session with one input, on one device. Its threads sleep between runs instead of spinning.

    provider: what runs all of the network, by default the device's own; settings: of the provider
    """

    known_ms: float | None = None

    def __init__(
        self,
        path: str,
        threads: int,
        device: str = "cpu",
        *,
        provider: str | None = None,
        settings: Mapping[str, str] | None = None,
    ):
        self.provider, self.settings = provider or PROVIDERS[device], dict(settings or {})
        check_provider(self.provider)
        self.path, self.threads, self.device = path, threads, device
        self.session = self._open()
        check_providers(self.provider, self.session.get_providers())
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            got = ", ".join(f"{value.name}: {value.type}" for value in inputs) or "none"
            raise failed("wrong-artefact", f"one fp32 input is needed, the model has {got}", where="onnxruntime")
        self.input = inputs[0].name

    def _open(self, change: Callable[[Any], None] = lambda options: None) -> Any:
        """A session with our options, changed by `change`."""
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # its errors are raised; it would print them as well, with escape sequences
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        change(options)
        chosen = [(self.provider, self.settings)]
        if self.device == "cpu":
            return cpu_session(self.path, options, chosen)
        # An op that only the CPU has is an error, not a detour; so is a provider that cannot be set up.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            return onnxruntime.InferenceSession(self.path, options, providers=chosen, enable_fallback=0)
        except Exception as error:
            if LEFT_TO_CPU not in str(error):
                raise
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
            found = onnxruntime.InferenceSession(self.path, options, providers=chosen, enable_fallback=0)
            check_providers(self.provider, found.get_providers())
            message = f"{self.provider} does not run all nodes of the network; the CPU would have had the rest"
            hint = "a latency on two devices is not one of the GPU's; use another runtime for this network"
            raise failed("wrong-artefact", message, where="onnxruntime", hint=hint) from error

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = self.session.run(None, {self.input: x_BX})
        return found

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        run, feed = self.session.run, {self.input: x_BX}
        return lambda: run(None, feed)

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        from archdsl.runtimes.adapters.onnx_profile import SessionProfiler

        if self.device != "cpu":
            raise failed("no-profile", "single ops are distinguished on a CPU only", where="onnxruntime")
        return SessionProfiler(Path(self.path), self._open, x_BX)


class BoundSession(Session):
    """A session that is timed from an input in the device's memory to an output there."""

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        onnxruntime = import_onnxruntime()
        session, binding = self.session, self.session.io_binding()
        binding.bind_ortvalue_input(self.input, onnxruntime.OrtValue.ortvalue_from_numpy(x_BX, self.device, 0))
        for value in session.get_outputs():
            binding.bind_output(value.name, self.device)

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run


def check_provider(provider: str) -> None:
    """Raises: MeasureError (`runtime-missing`) when the installed library cannot be imported, or was built without the
    provider"""
    try:
        onnxruntime = import_onnxruntime()
    except (ImportError, OSError) as error:
        message = f"`import onnxruntime` fails: {error}"
        raise failed("runtime-missing", message, where="onnxruntime", hint=BRING[provider]) from error

    available = onnxruntime.get_available_providers()
    if provider not in available:
        message = f"the installed ONNX Runtime has no {provider}, only {', '.join(available)}"
        raise failed("runtime-missing", message, where="onnxruntime", hint=BRING[provider])


def check_providers(provider: str, used: list[str]) -> None:
    """Raises: MeasureError (`runtime-missing`) when a session does not use the provider first

    The library itself only warns when a provider cannot be set up, and goes on with the CPU.
    """
    if used[:1] != [provider]:
        message = f"ONNX Runtime could not set up {provider}, and would have used {', '.join(used) or 'none'}"
        needed = "CUDA, cuDNN and TensorRT" if provider.startswith("Tensorrt") else "CUDA and cuDNN"
        hint = f"its {needed} versions must be those onnxruntime-gpu was built for; `nvidia-smi` shows the driver"
        raise failed("runtime-missing", message, where="onnxruntime", hint=hint)


class OnnxRuntime(Runtime):
    """ONNX Runtime on a CPU or an NVIDIA GPU."""

    name = "onnxruntime"
    kinds: tuple[ArtefactKind, ...] = ("onnx",)
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32", "fp16"), "cuda": ("fp32", "fp16", "bf16")}
    modules = ("onnxruntime",)

    def version(self) -> str:
        return library_version(self.name, ("onnxruntime", "onnxruntime-gpu"), bring="pip install 'archdsl[ort]'")

    def device_name(self, device: str) -> str:
        from archdsl.backends.trt.library import gpu_name

        if device == "cpu":
            return cpu_name()
        check_provider(PROVIDERS[device])
        return gpu_name() or "unknown GPU"

    def load(self, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        session = Session if config.device == "cpu" else BoundSession
        return session(str(artefact.path), config.threads, config.device)


RUNTIME = OnnxRuntime()
