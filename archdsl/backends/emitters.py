"""The emitters of a backend: collected from its folder `emitters/`, whose files mirror those of `archdsl.ops`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from archdsl.errors import BackendError, Problem, at_argument
from archdsl.ir.graph import Node
from archdsl.ir.op import Op


def collected(package: str) -> dict[type[Op], Any]:
    """The tables `EMITTERS` of the package's modules as one, by op.

    Raises: ValueError when two modules have an emitter for one op
    """
    found: dict[type[Op], Any] = {}
    for info in iter_modules(import_module(package).__path__):
        table = import_module(f"{package}.{info.name}").EMITTERS
        if twice := sorted(op.__name__ for op in table.keys() & found.keys()):
            raise ValueError(f"{package}.{info.name} has a second emitter for {', '.join(twice)}")
        found |= table
    return found


def no_emitter(backend: str, node: Node) -> BackendError:
    """The error for an op that the backend has no emitter for."""
    name, family = type(node.op).__name__, type(node.op).__module__.rpartition(".")[2]
    message = f"the {backend} backend cannot emit the op {name}"
    hint = f"add an emitter for {name} to EMITTERS of emitters/{family}.py of that backend"
    return BackendError(Problem(at_argument(backend, node.path), "unknown-name", message, hint, node.path))
