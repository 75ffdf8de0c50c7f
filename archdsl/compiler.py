"""Spec -> graph -> passes -> backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from archdsl.backends import backend
from archdsl.ir.graph import Graph
from archdsl.passes.onnx_tool import onnx_tool_flops, onnx_tool_params
from archdsl.passes.runner import Pass, run_passes
from archdsl.passes.settle_reorders import settle
from archdsl.spec.load import load
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec

if TYPE_CHECKING:
    from torch import fx

AnySpec = Spec | str | os.PathLike[str]
"""A spec, or the name or path of one."""

PASSES: tuple[Pass, ...] = (settle,)


@dataclass(frozen=True)
class SpecCost:
    """What one image costs, by the usual convention (`ir.op.Cost`) and by Swin-Free's (`passes.onnx_tool`).

    onnx_tool_flops is None for networks with ops that convention does not define.
    """

    params: int
    macs: int
    constants: int
    bytes_read: int
    bytes_written: int
    onnx_tool_flops: int | None
    onnx_tool_params: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compile(spec: AnySpec) -> Graph:
    """The graph of a spec after all passes, ready for a backend."""
    return run_passes(lower(as_spec(spec)), PASSES)[0]


def cost(spec: AnySpec) -> SpecCost:
    """Parameters, MACs, constants and bytes of a spec, for one image. Needs no torch."""
    graph = lower(as_spec(spec))
    usual = graph.cost()
    return SpecCost(**asdict(usual), onnx_tool_flops=onnx_tool_flops(graph), onnx_tool_params=onnx_tool_params(graph))


def identity(spec: AnySpec, *, training: bool = True) -> str:
    """The canonical hash: equal for specs that are the same network, whatever they are called and however written."""
    return lower(as_spec(spec)).hash(training=training)


def build(spec: AnySpec, weights: Mapping[str, Any] | None = None, *, seed: int = 0) -> fx.GraphModule:
    """A PyTorch module of the spec: images [B, C, H, W] -> logits [B, classes].

    weights: a state dict by archdsl's names (see `import_weights`); by default the initial weights of `seed`
    """
    module: fx.GraphModule = backend("torch").emit(compile(spec), weights, seed=seed)
    return module


def export_onnx(spec: AnySpec, path: str | os.PathLike[str], weights: Mapping[str, Any] | None = None) -> None:
    """Write the spec as an ONNX model with a dynamic batch axis. The file appears whole or not at all."""
    backend("onnx").save(compile(spec), path, weights)


def as_spec(spec: AnySpec) -> Spec:
    """`spec` itself, or the one that its name or path leads to."""
    return spec if isinstance(spec, Spec) else load(spec)
