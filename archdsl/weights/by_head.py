"""Rows of q, k and v that another library holds head by head, where ours are part by part.

Ours are all heads of q, then all of k, then all of v; theirs are q, k and v of the first head, then of the second. How
many heads there are, and how wide, the graph says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archdsl.ir.graph import Graph, Node
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.norm import BatchNorm
from archdsl.ops.tokens import Slice


@dataclass(frozen=True)
class MadeTogether:
    """A value that attention reads in parts.

    path: of the op that makes it, a batch norm or a linear layer
    tensors: of that op, and of the linear layer before a batch norm
    rows: for each row of ours where it is, if they are held head by head
    """

    path: str
    tensors: tuple[str, ...]
    rows: tuple[int, ...]


def made_together(graph: Graph) -> Iterator[MadeTogether]:
    """The values that attentions of `graph` read in parts, as a whole."""
    for attention in graph.live():
        if not isinstance(attention.op, Attention):
            continue
        parts: dict[Node, list[Slice]] = {}
        for x in attention.inputs[:3]:
            if isinstance(x.op, Slice):
                parts.setdefault(x.inputs[0], []).append(x.op)
        for source, slices in parts.items():
            rows = _rows(slices, attention.op.heads)
            layers = [layer for layer in (source, *source.inputs) if isinstance(layer.op, BatchNorm | Linear)]
            tensors = (name for layer in layers for name in layer.tensors())
            if len(rows) == source.type.channels:
                yield MadeTogether(source.path, tuple(tensors), rows)


def _rows(slices: list[Slice], heads: int) -> tuple[int, ...]:
    """Where each of our rows is, for parts in the order in which they are cut."""
    widths = [(part.stop - part.start) // heads for part in sorted(slices, key=lambda part: part.start)]
    return tuple(
        head * sum(widths) + sum(widths[:index]) + channel
        for index, width in enumerate(widths)
        for head in range(heads)
        for channel in range(width)
    )
