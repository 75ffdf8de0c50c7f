"""Placeholder weights for a network that is measured or profiled without weights of its own.

The initial weights will not do everywhere: they hold whole vectors of ones and zeros (norms, biases), and OpenVINO
removes a multiplication by one and an addition of zero. A network with trained weights has those ops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from archdsl.backends.initial import initial_tensor
from archdsl.ir.graph import Graph
from archdsl.ir.op import Init, ParamSpec

SEED = 0
SPREAD = 0.02


def placeholder_weights(graph: Graph) -> dict[str, NDArray[Any]]:
    """The initial weights, their ones, zeros and constants spread a little: equal in every process, never negative
    where they start positive (a variance, a scale)."""
    return {name: _tensor(tensor, name) for name, tensor in graph.tensors().items()}


def _tensor(tensor: ParamSpec, name: str) -> NDArray[Any]:
    start = initial_tensor(tensor, name, SEED)
    if tensor.init.law in ("normal", "uniform"):
        return start
    noise = initial_tensor(ParamSpec(tensor.shape, Init("normal", SPREAD)), f"{name}/spread", SEED)
    spread: NDArray[Any] = noise if tensor.init.law == "zeros" else start * (1 + noise)
    return spread.astype(np.float32, copy=False)
