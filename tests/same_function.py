"""Whether a network after a pass computes what it did before, on PyTorch and on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from onnx_runs import random_weights, run

from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.torch import fx as torch_fx
from archdsl.ir.graph import Graph
from archdsl.passes.network import Network
from archdsl.passes.runner import Pass, run_passes

TOLERANCE = 1e-5
"""The largest difference, as a share of the largest output."""


def after(*passes: Pass, graph: Graph, weights: Mapping[str, np.ndarray] | None = None, onnx: bool = True) -> Network:
    """The network after `passes`, once it is known to compute what `graph` does with random weights."""
    before = Network(graph, random_weights(graph) if weights is None else weights)
    network, _ = run_passes(before, passes)
    assert_same_function(network, before, onnx=onnx)
    return network


def assert_same_function(
    network: Network, before: Network, *, tolerance: float = TOLERANCE, onnx: bool = True, seed: int = 1
) -> None:
    """For random inputs, on which the outputs are known to depend."""
    xs = inputs(before.graph, seed=seed)
    want = torch_outputs(before, xs)
    assert any(depends_on_the_input(y) for y in want), "with these weights the test would see nothing"
    for got in [torch_outputs(network, xs), *([onnx_outputs(network, xs)] if onnx else [])]:
        for ours, theirs in zip(got, want, strict=True):
            assert difference(ours, theirs) <= tolerance


def depends_on_the_input(y: np.ndarray) -> bool:
    return y.ndim > 0 and len(y) > 1 and difference(y[1:], np.broadcast_to(y[:1], y[1:].shape)) > 0.05


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, as a share of the largest number wanted; NaN when there is one."""
    assert got.shape == want.shape
    return float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())


def inputs(graph: Graph, count: int = 2, seed: int = 1) -> list[np.ndarray]:
    """`count` random images for each input of the graph."""
    draw = np.random.default_rng(seed)
    return [draw.standard_normal((count, *node.type.shape), dtype=np.float32) for node in graph.inputs]


def torch_outputs(network: Network, xs: list[np.ndarray]) -> list[np.ndarray]:
    module = torch_fx.emit(network.graph, network.weights).eval()
    with torch.inference_mode():
        found = module(*map(torch.from_numpy, xs))
    return [y.numpy() for y in (found.values() if isinstance(found, dict) else (found,))]


def onnx_outputs(network: Network, xs: list[np.ndarray]) -> list[np.ndarray]:
    return run(onnx_model.emit(network.graph, network.weights), *xs)
