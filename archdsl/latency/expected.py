"""What a network must answer: fp32 PyTorch on random input, the gate of every time that counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.backends import backend
from archdsl.backends.precision import precision_named
from archdsl.compiler import compile
from archdsl.ir.graph import Graph
from archdsl.latency.artefact import Reference
from archdsl.latency.stand_in import stand_in_weights
from archdsl.spec.model import Spec

CHECK_BATCH = 2


def reference_of(
    spec: Spec, precision: str = "fp32", *, images: int = CHECK_BATCH, weights: Mapping[str, Any] | None = None
) -> Reference:
    """What the network of `spec` must answer to random images; see `expected_of`."""
    return expected_of(compile(spec), precision, images=images, weights=weights)


def expected_of(
    graph: Graph, precision: str = "fp32", *, images: int = CHECK_BATCH, weights: Mapping[str, Any] | None = None
) -> Reference:
    """What a network or a part of one must answer to random numbers, as nearly as `precision` allows.

    weights: by default the numbers that stand in for trained ones, which artefacts have by default too
    Errors: BackendError where torch lacks an op
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no pool of ours may spin while the worker takes its time
    try:
        x_BX = torch.randn(images, *graph.inputs[0].type.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            y_BX = backend("torch").emit(graph, weights or stand_in_weights(graph)).eval()(x_BX)
    finally:
        torch.set_num_threads(threads)
    return Reference(x_BX.numpy(), y_BX.numpy(), precision_named(precision).tolerance)
