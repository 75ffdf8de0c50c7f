"""ONNX Runtime, imported so that it reports nothing to its makers; sessions on its CPU provider."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

QUIET = "ORT_DISABLE_TELEMETRY"
"""Without it, version 1.31 writes an identifier of the machine and a database of events to the home directory."""


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, without its telemetry; a value of `QUIET` that the user has set is kept.

    Raises: ImportError; OSError when one of its libraries does not load
    """
    os.environ.setdefault(QUIET, "1")
    return import_module("onnxruntime")


def cpu_session(model: str | bytes, options: Any, providers: Sequence[Any] = ("CPUExecutionProvider",)) -> Any:
    """A session of an ONNX file, or of its bytes, on the CPU provider.

    The library moves quantize / dequantize pairs through a Transpose, for which it has no fp8 kernel. A file that it
    refuses because of fp8 is opened once more with the pairs left in their places.

    options: the library's `SessionOptions`; providers: with their settings
    Raises: what the library raises
    """
    onnxruntime = import_onnxruntime()
    try:
        return onnxruntime.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # the library's errors have no common base
        if "float8" not in str(error):
            raise
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return onnxruntime.InferenceSession(model, options, providers=list(providers))
