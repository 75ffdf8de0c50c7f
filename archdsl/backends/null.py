"""The backend that makes nothing: a list of what would be done. It needs no framework, so it tests the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.ir.graph import Graph


def emit(graph: Graph, weights: Mapping[str, Any] | None = None) -> str:
    """One line for each node: its path, its op with the fields that are not at their defaults, its type.

    Example: `stem.proj: Conv2d(c_in=3, c_out=96, kernel=4, stride=4) -> f32[B, 96, 56, 56] planes(56x56)`
    """
    lines = [f"{node.path}: {node.op} -> {node.type}" for node in graph.live()]
    return "\n".join([*lines, *(f"{name}: {node.path}" for name, node in graph.outputs.items())])
