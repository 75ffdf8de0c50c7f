"""The backend that makes nothing: a list of what would be done. It needs no framework, so it tests the compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from archdsl.backends.errors import no_emitter
from archdsl.ir.graph import Graph, Input
from archdsl.ir.op import Op
from archdsl.ops import (
    Activation,
    Add,
    AddPosition,
    Affine,
    Attention,
    BatchNorm,
    Cast,
    Constant,
    Conv2d,
    Dropout,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    MeanPool,
    MergeGroups,
    PrependToken,
    RelativePositionBias,
    Reorder,
    ShiftMask,
    Slice,
    TakeToken,
    TokenAffine,
    TokenBatchNorm,
)

EMITTERS: dict[type[Op], Callable[[Any], str]] = {
    Input: lambda _: "read",
    Linear: lambda op: f"multiply by [{op.d_in}, {op.d_out}]",
    Conv2d: lambda op: f"convolve {op.kernel}x{op.kernel} / {op.stride}",
    LayerNorm: lambda _: "normalise each token",
    BatchNorm: lambda _: "normalise each channel",
    TokenBatchNorm: lambda _: "normalise each position",
    Affine: lambda _: "scale and shift each channel",
    TokenAffine: lambda _: "scale and shift each position",
    Activation: lambda op: op.name,
    Add: lambda _: "add",
    LayerScale: lambda _: "scale each channel",
    DropPath: lambda _: "nothing",
    Dropout: lambda _: "nothing",
    Reorder: lambda op: f"move to {op.to}",
    MergeGroups: lambda _: "view 4 tokens as one",
    Slice: lambda op: f"channels {op.start}:{op.stop}",
    PrependToken: lambda _: "put a token before",
    AddPosition: lambda _: "add a vector to each token",
    TakeToken: lambda op: f"token {op.position}",
    MeanPool: lambda _: "mean of all positions",
    Attention: lambda op: f"attend, {op.heads} heads",
    RelativePositionBias: lambda _: "spread the table",
    ShiftMask: lambda _: "mask",
    Constant: lambda _: "numbers",
    Cast: lambda op: f"as {op.to}",
}


def emit(graph: Graph, weights: Mapping[str, Any] | None = None) -> str:
    """One line a node: its path, what is done, the type that comes out.

    Errors: BackendError when an op has no entry in EMITTERS.
    """
    lines = []
    for node in graph.live():
        if type(node.op) not in EMITTERS:
            raise no_emitter("null", node)
        lines.append(f"{node.path}: {EMITTERS[type(node.op)](node.op)} -> {node.type}")
    lines.extend(f"{name}: {node.path}" for name, node in graph.outputs.items())
    return "\n".join(lines)
