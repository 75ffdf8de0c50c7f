"""Slices that together are a split: q, k and v of one linear layer. One op of a backend then makes all of them."""

from __future__ import annotations

from archdsl.ir.graph import Graph, Node
from archdsl.ops import Slice

Splits = dict[Node, tuple[Slice, ...]]


def splits_of(graph: Graph) -> Splits:
    """The values whose channel slices cut them without gaps or overlaps, with those slices in order."""
    found: dict[Node, set[Slice]] = {}
    for node in graph.live():
        if isinstance(node.op, Slice):
            found.setdefault(node.inputs[0], set()).add(node.op)
    ordered = {source: tuple(sorted(ops, key=lambda op: (op.start, op.stop))) for source, ops in found.items()}
    return {source: slices for source, slices in ordered.items() if _is_split(slices, source.type.channels)}


def _is_split(slices: tuple[Slice, ...], channels: int) -> bool:
    cuts = [0, *(part.stop for part in slices)]
    return len(slices) > 1 and [part.start for part in slices] == cuts[:-1] and cuts[-1] == channels
