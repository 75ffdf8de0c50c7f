"""The time of a network's segments: each as a network of its own, deployed and written as whole networks are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from archdsl.ir.graph import Graph
from archdsl.ir.types import TensorType
from archdsl.ops.linear import Linear
from archdsl.passes.segments import INPUT, OUTPUT, Segment
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.export import artefact_of_graph
from archdsl.runtimes.target import Target

BUILD = "segment"
"""What stands in a timing's `build` for the time of a segment, before the precision."""

CALL_BUILD = "call"


def segment_artefact(segment: Segment, target: Target, folder: Path) -> Artefact:
    """The segment for `target`'s runtime and precision; files are written to `folder`.

    Raises: MeasureError (`wrong-artefact`) for a runtime that takes specs only; what building and writing raise
    """
    return artefact_of_graph(segment.graph, target, folder, key=segment.key, name=segment.name, build=BUILD)


@cache
def the_call() -> Graph:
    """A network with next to nothing in it: its time is what calling a runtime takes."""
    graph = Graph("call")
    x = graph.input(INPUT, TensorType((1,)))
    graph.output(OUTPUT, graph.add(Linear(1, 1), x, path="linear"))
    return graph


def call_artefact(target: Target, folder: Path) -> Artefact:
    """`the_call` for `target`; it counts as no work, since it stands for what is there without any."""
    graph = the_call()
    made = artefact_of_graph(graph, target, folder, key=graph.hash(training=False), name="the call", build=CALL_BUILD)
    return replace(made, macs=0, bytes_moved=0)


def distinct(segments: Sequence[Segment]) -> dict[str, Segment]:
    """One segment for each key, in the order in which they come."""
    found: dict[str, Segment] = {}
    for segment in segments:
        found.setdefault(segment.key, segment)
    return found
