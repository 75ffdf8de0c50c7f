"""Graph -> artefact. A backend is a name in this table and one file; importing archdsl imports none of them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from archdsl.errors import BackendError

BACKENDS: dict[str, str] = {
    "null": "archdsl.backends.null",  # nothing: for tests of the compiler
    "torch": "archdsl.backends.torch.fx",  # an fx.GraphModule
    "onnx": "archdsl.backends.onnx.model",  # an ONNX ModelProto
    "source": "archdsl.backends.source.file",  # the text of a PyTorch file
    "tensorrt": "archdsl.backends.trt.engine",  # a TensorRT engine, by way of ONNX
}


def backend(name: str) -> ModuleType:
    """The module of the backend called `name`. Raises: BackendError when there is none or its library is missing."""
    if name not in BACKENDS:
        message, hint = f"there is no backend {name!r}", f"the backends are {', '.join(BACKENDS)}"
        raise BackendError.at("backend", name, "unknown-name", message, hint)
    try:
        return import_module(BACKENDS[name])
    except ImportError as error:
        message = f"backend {name!r} needs {error.name}: {error}"
        raise BackendError.at("backend", name, "missing-library", message) from error
