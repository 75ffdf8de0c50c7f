"""Graph -> torch.fx.GraphModule: readable code that trains, compiles and exports, its parameters named by path."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import fx

from archdsl.backends.emitters import no_emitter
from archdsl.backends.initial import check_weights, initial_weights
from archdsl.backends.torch import deploy as torch_deploy
from archdsl.backends.torch.builder import DTYPES, ModuleBuilder
from archdsl.backends.torch.emitters import EMITTERS
from archdsl.ir.graph import Graph, Node
from archdsl.ops.values import Constant
from archdsl.passes.uses import splits_of


def emit(
    graph: Graph,
    weights: Mapping[str, np.ndarray | torch.Tensor] | None = None,
    *,
    seed: int = 0,
    deploy: bool = False,
) -> fx.GraphModule:
    """A module that computes `graph`: images [B, C, H, W] -> its output, or a mapping of its outputs by name
    when there are several.

    weights: state dict by parameter path; by default the initial weights of `seed`, the same for every backend
    deploy: in eval mode, with the forms that are fastest without gradients (`backends.torch.deploy`)
    Raises: WeightsError when a tensor is missing or has another shape
    """
    build = ModuleBuilder(graph.name, splits_of(graph))
    values: dict[Node, fx.Node] = {}
    for node in graph.live():
        emitter = EMITTERS.get(type(node.op))
        if emitter is None:
            raise no_emitter("torch", node)
        values[node] = emitter(build, node, [values[x] for x in node.inputs])
    ends = {name: values[node] for name, node in graph.outputs.items()}
    build.code.output(next(iter(ends.values())) if len(ends) == 1 else ends)

    module = fx.GraphModule(build.root, build.code, class_name=graph.name)
    formats = _formats(graph)
    if weights is not None:
        check_weights(graph, weights)
        state = {name: _own_copy(torch.as_tensor(value), formats.get(name)) for name, value in weights.items()}
    else:
        drawn = initial_weights(graph, seed).items()
        state = {name: torch.from_numpy(value).to(formats[name]) for name, value in drawn}
    module.load_state_dict(state, strict=True, assign=True)  # the large modules were made without memory of their own
    if deploy:
        module.eval().requires_grad_(False)
        module.graph.eliminate_dead_code()
        return torch_deploy.optimise(module)
    return module


def _own_copy(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """A copy for the module to keep: on the CPU, in the graph's format (counters stay whole numbers)."""
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _formats(graph: Graph) -> dict[str, torch.dtype]:
    """The format of each tensor: its node's, and for a constant that attention adds to its logits, that of its q.

    One that attentions of several formats add stays fp32: torch takes such a bias with any q, and no other mixture.
    """
    held = {node: node.type.dtype for node in graph.live()}
    for node, users in graph.users().items():
        wanted = {user.type.dtype for user in users}
        if isinstance(node.op, Constant) and len(wanted) == 1:
            held[node] = wanted.pop()
    return {name: DTYPES[dtype] for node, dtype in held.items() for name in node.tensors()}
