"""ONNX Runtime, imported so that it reports nothing to its makers."""

from __future__ import annotations

import os
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
