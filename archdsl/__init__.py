"""Write a vision architecture as YAML, compile it, measure it, search for the best.

The verbs of the command line are functions here. Each is imported when it is first used, so `import archdsl` is fast
and needs none of torch, onnx or optuna.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in `typing`, which `python -m archdsl` would import from the working folder
if TYPE_CHECKING:
    from typing import Any

    from archdsl.compiler import build, compile, cost, deploy, export_onnx, features, identity
    from archdsl.language.architecture.load import load
    from archdsl.latency.engine.compile import compile_engine
    from archdsl.latency.measurement import measure
    from archdsl.report.shipped_specs import list_specs
    from archdsl.runs.evaluate import evaluate
    from archdsl.runs.report import write_report
    from archdsl.runs.search import search
    from archdsl.runs.status import status
    from archdsl.training.loop import train
    from archdsl.weights.importing import import_weights

__version__ = "0.1.0"

_HOME = {
    "load": "archdsl.language.architecture.load",
    "build": "archdsl.compiler",
    "compile": "archdsl.compiler",
    "cost": "archdsl.compiler",
    "deploy": "archdsl.compiler",
    "identity": "archdsl.compiler",
    "export_onnx": "archdsl.compiler",
    "features": "archdsl.compiler",
    "import_weights": "archdsl.weights.importing",
    "compile_engine": "archdsl.latency.engine.compile",
    "measure": "archdsl.latency.measurement",
    "train": "archdsl.training.loop",
    "search": "archdsl.runs.search",
    "status": "archdsl.runs.status",
    "write_report": "archdsl.runs.report",
    "list_specs": "archdsl.report.shipped_specs",
    "evaluate": "archdsl.runs.evaluate",
}

__all__ = [
    "__version__",
    "build",
    "compile",
    "compile_engine",
    "cost",
    "deploy",
    "evaluate",
    "export_onnx",
    "features",
    "identity",
    "import_weights",
    "list_specs",
    "load",
    "measure",
    "search",
    "status",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'archdsl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
