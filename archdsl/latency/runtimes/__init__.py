"""What runs an artefact. A runtime is one file with a `RUNTIME` and one row in the table, which imports no library."""

from __future__ import annotations

from importlib import import_module

from archdsl.latency.runtimes.protocol import Loaded, OpProfile, OpTime, Profilable, Profiler, Runtime

RUNTIMES: dict[str, str] = {
    "null": "archdsl.latency.runtimes.null",  # computes a latency from counts, for tests
    "onnxruntime": "archdsl.latency.runtimes.onnx_runtime",  # onnxruntime
    "onnxruntime-tensorrt": "archdsl.latency.runtimes.onnx_tensorrt",  # onnxruntime-gpu, TensorRT and a GPU
    "openvino": "archdsl.latency.runtimes.openvino_runtime",  # openvino
    "tensorrt": "archdsl.latency.runtimes.tensorrt_engine",  # tensorrt, torch for its buffers, and a GPU
    "torch": "archdsl.latency.runtimes.torch_eager",  # torch
    "torch-compile": "archdsl.latency.runtimes.torch_compile",  # torch and a C++ compiler
    "torch-cudagraph": "archdsl.latency.runtimes.torch_cudagraph",  # torch and a GPU
}

__all__ = ["RUNTIMES", "Loaded", "OpProfile", "OpTime", "Profilable", "Profiler", "Runtime", "runtime"]


def runtime(name: str) -> Runtime:
    """The runtime called `name`. Raises KeyError for a name that is not in the table; `Target` says it nicer."""
    found: Runtime = import_module(RUNTIMES[name]).RUNTIME
    return found
