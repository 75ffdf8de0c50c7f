"""Reference outputs: what fp32 PyTorch answers to random input, which every measured artefact must reproduce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from archdsl.backends import backend
from archdsl.backends.precision import precision_named
from archdsl.compiler import compile
from archdsl.ir.graph import Graph
from archdsl.language.architecture.model import Spec
from archdsl.runtimes.artefact import Reference
from archdsl.runtimes.placeholder_weights import placeholder_weights

CHECK_BATCH = 2


def reference_of(
    spec: Spec, precision: str = "fp32", *, images: int = CHECK_BATCH, weights: Mapping[str, Any] | None = None
) -> Reference:
    """The reference of a whole network; arguments as of `expected_of`."""
    return expected_of(compile(spec), precision, images=images, weights=weights)


def expected_of(
    graph: Graph, precision: str = "fp32", *, images: int = CHECK_BATCH, weights: Mapping[str, Any] | None = None
) -> Reference:
    """What fp32 PyTorch answers to standard normal inputs [images, *input_shape], with the tolerance of `precision`.

    weights: by default the placeholder weights, which artefacts have by default too
    Raises: BackendError where torch lacks an op
    """
    import torch

    with torch.no_grad(), one_thread():
        x_BX = torch.randn(images, *graph.inputs[0].type.shape, generator=torch.Generator().manual_seed(0))
        found = backend("torch").emit(graph, weights or placeholder_weights(graph)).eval()(x_BX)
        y_BX = next(iter(found.values())) if isinstance(found, dict) else found
    return Reference(x_BX.numpy(), y_BX.numpy(), precision_named(precision).tolerance)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread in the block: no pool of this process may spin while the worker measures."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
