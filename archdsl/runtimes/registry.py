"""The table of runtimes. A runtime is one file with a `RUNTIME` and one row here; the table imports no library."""

from __future__ import annotations

from importlib import import_module

from archdsl.runtimes.protocol import Runtime

RUNTIMES: dict[str, str] = {
    "null": "archdsl.runtimes.adapters.null",  # computes a latency from counts, for tests
    "onnxruntime": "archdsl.runtimes.adapters.onnx_runtime",  # onnxruntime
    "onnxruntime-tensorrt": "archdsl.runtimes.adapters.onnx_tensorrt",  # onnxruntime-gpu, TensorRT and a GPU
    "openvino": "archdsl.runtimes.adapters.openvino_runtime",  # openvino
    "tensorrt": "archdsl.runtimes.adapters.tensorrt_engine",  # tensorrt, torch for its buffers, and a GPU
    "tensorrt-rtx": "archdsl.runtimes.adapters.tensorrt_rtx",  # tensorrt-rtx-cu13; torch and a GPU only to run
    "torch": "archdsl.runtimes.adapters.torch_eager",  # torch
    "torch-compile": "archdsl.runtimes.adapters.torch_compile",  # torch and a C++ compiler
    "torch-cudagraph": "archdsl.runtimes.adapters.torch_cudagraph",  # torch and a GPU
}
"""By the name that users write: the module whose `RUNTIME` is the adapter. Plug-ins may add rows."""


def runtime(name: str) -> Runtime:
    """The adapter of a runtime.

    Raises:  KeyError for a name that is not in the table; `Target` reports such a name to users
    Example:
        >>> runtime("null").devices
        ('cpu',)
    """
    found: Runtime = import_module(RUNTIMES[name]).RUNTIME
    return found
