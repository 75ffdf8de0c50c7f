"""What every backend says when it cannot."""

from __future__ import annotations

from archdsl.errors import BackendError, Problem, at_argument
from archdsl.ir.graph import Node


def no_emitter(backend: str, node: Node) -> BackendError:
    """The error for an op that the backend has no emitter for."""
    op = type(node.op).__name__
    return BackendError(
        Problem(
            at_argument(backend, node.path),
            "unknown-name",
            f"the {backend} backend cannot emit the op {op}",
            f"add an emitter for {op} to EMITTERS of that backend",
            node.path,
        )
    )
