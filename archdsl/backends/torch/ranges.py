"""Which nodes of a network fp16's range is too small for, found by running it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from archdsl.backends.parity import probe_images
from archdsl.backends.torch import ops as torch_ops
from archdsl.backends.torch.fx import emit
from archdsl.ir.graph import Node
from archdsl.passes.network import Network

LARGEST_FP16 = 65504.0
HEADROOM = 8.0
"""How far below the end of the range the values of a few images must stay, for the images that were not run."""


def beyond_fp16(network: Network, images: torch.Tensor | None = None) -> frozenset[str]:
    """Paths of the nodes that make or read a value which, times HEADROOM, does not fit into fp16, or hold such numbers.

    Attention's logits count as values, although no node stands for them: backends may multiply q and k in fp16.

    images: [B, C, H, W]; by default two of `probe_images`
    """
    watcher = _watched(network, images)
    large, with_large_logits = (
        {path for path, largest in ranges.items() if not largest * HEADROOM <= LARGEST_FP16}
        for ranges in (watcher.largest, watcher.logits)
    )

    def needs_fp32(node: Node) -> bool:
        # what reads a large value would be given it in fp16, however small what it makes of it
        return (
            node.path in large | with_large_logits
            or any(x.path in large for x in node.inputs)
            or any(not _fits(numbers) for numbers in network.of(node).values())
        )

    return frozenset(node.path for node in network.graph.live() if needs_fp32(node))


def _fits(numbers: np.ndarray[Any, Any]) -> bool:
    """Whether the numbers, which no image changes, fit into fp16."""
    return not numbers.size or bool(max(numbers.max(), -numbers.min()) <= LARGEST_FP16)


def largest_values(network: Network, images: torch.Tensor | None = None) -> dict[str, float]:
    """For each node that makes something of the images, the largest |value| seen."""
    return _watched(network, images).largest


def _watched(network: Network, images: torch.Tensor | None) -> _Watcher:
    if images is None:
        images = torch.from_numpy(probe_images(network.graph.inputs[0].type.shape, 2))
    watcher = _Watcher(emit(network.graph, network.weights).eval())
    with torch.inference_mode():
        watcher.run(images)
    return watcher


class _Watcher(fx.Interpreter):
    """Runs a module and remembers how large the values of its nodes were, and a bound of each attention's logits."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.largest: dict[str, float] = {}
        self.logits: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.target is torch_ops.attend:
            (q, k, *_), how = self.fetch_args_kwargs_from_env(n)
            lengths = _largest_length(q, how["heads"]) * _largest_length(k, how["heads"])
            self.logits[n.meta["path"]] = lengths * how["scale"]
        value = super().run_node(n)
        if "path" in n.meta and isinstance(value, torch.Tensor) and value.is_floating_point():
            self.largest[n.meta["path"]] = float(value.abs().max())
        return value


def _largest_length(x: torch.Tensor, heads: int) -> float:
    """The length of the longest vector that a head has in x, [B, N, heads * d]."""
    return float(torch.linalg.vector_norm(x.reshape(*x.shape[:-1], heads, -1), dim=-1).max())
