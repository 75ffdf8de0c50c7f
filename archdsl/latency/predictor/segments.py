"""The time of a network's segments: each as a network of its own, deployed and written as whole networks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from archdsl.backends import backend
from archdsl.backends.precision import precision_named
from archdsl.ir.graph import Graph
from archdsl.ir.types import TensorType
from archdsl.latency.artefact import Artefact, Reference
from archdsl.latency.networks import artefact_of_graph
from archdsl.latency.stand_in import stand_in_weights
from archdsl.latency.target import Target
from archdsl.ops import Linear
from archdsl.passes.segments import INPUT, OUTPUT, Segment

BUILD = "segment"
"""What stands in a timing's `build` for the time of a segment, before the precision."""

CALL_BUILD = "call"
CHECK_BATCH = 2

Weigh = Callable[[Graph], Mapping[str, Any]]


def segment_artefact(segment: Segment, target: Target, folder: Path) -> Artefact:
    """The segment for `target`'s runtime and precision; files are written to `folder`.

    Errors: MeasureError (`wrong-artefact`) for a runtime that takes specs only; what building and writing raise
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
    from dataclasses import replace

    graph = the_call()
    made = artefact_of_graph(graph, target, folder, key=graph.hash(training=False), name="the call", build=CALL_BUILD)
    return replace(made, macs=0, bytes_moved=0)


def expected_of(graph: Graph, precision: str = "fp32") -> Reference:
    """What fp32 PyTorch answers to random numbers, with the weights that the artefact has: the gate of its time.

    Errors: BackendError where torch lacks an op
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no pool of ours may spin while the worker takes its time
    try:
        shape = (CHECK_BATCH, *graph.inputs[0].type.shape)
        x_BX = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            y_BX = backend("torch").emit(graph, stand_in_weights(graph)).eval()(x_BX)
    finally:
        torch.set_num_threads(threads)
    return Reference(x_BX.numpy(), y_BX.numpy(), precision_named(precision).tolerance)


def distinct(segments: Sequence[Segment]) -> dict[str, Segment]:
    """One segment for each key, in the order in which they come."""
    found: dict[str, Segment] = {}
    for segment in segments:
        found.setdefault(segment.key, segment)
    return found
