"""Graph -> torch.fx.GraphModule: readable code that trains, compiles and exports, its parameters named by path."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from archdsl.backends.errors import no_emitter
from archdsl.backends.initial import check_weights, initial_weights
from archdsl.backends.splits import Splits, splits_of
from archdsl.backends.torch import deploy as torch_deploy
from archdsl.backends.torch import ops as torch_ops
from archdsl.ir.graph import Graph, Input, Node
from archdsl.ir.op import Op
from archdsl.ir.order import Order, Planes
from archdsl.ir.types import DType
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
from archdsl.ops.attention import windows_in

SomeOp = TypeVar("SomeOp", bound=Op)

DTYPES: dict[DType, torch.dtype] = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
}


def emit(
    graph: Graph,
    weights: Mapping[str, np.ndarray | torch.Tensor] | None = None,
    *,
    seed: int = 0,
    deploy: bool = False,
) -> fx.GraphModule:
    """A module that computes `graph`: images [B, C, H, W] -> its output (a tuple when there are several).

    weights: state dict by parameter path; by default the initial weights of `seed`, the same for every backend
    deploy: in eval mode, with the forms that are fastest without gradients (`backends.torch.deploy`)
    Errors: WeightsError when a tensor is missing or has another shape
    """
    build = _Build(graph.name, splits_of(graph))
    values: dict[Node, fx.Node] = {}
    for node in graph.live():
        emitter = EMITTERS.get(type(node.op))
        if emitter is None:
            raise no_emitter("torch", node)
        values[node] = emitter(build, node, [values[x] for x in node.inputs])
    ends = tuple(values[node] for node in graph.outputs.values())
    build.code.output(ends[0] if len(ends) == 1 else ends)

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


@dataclass
class _Build:
    """The module tree and the code under construction. Tensors that several nodes use are held once."""

    name: str
    splits: Splits
    root: nn.Module = field(default_factory=nn.Module)
    code: fx.Graph = field(default_factory=fx.Graph)
    constants: dict[object, fx.Node] = field(default_factory=dict)
    split: dict[Node, fx.Node] = field(default_factory=dict)

    def module(self, node: Node, module: nn.Module, *args: fx.Node) -> fx.Node:
        """Call `module`, held at the node's path."""
        owner, name = self._owner(node.path)
        owner.add_module(name, module)
        return self._named(node, self.code.call_module(node.path, args))

    def call(self, node: Node, function: Callable[..., object], *args: object, **options: object) -> fx.Node:
        """Call a function."""
        made = self.code.create_node("call_function", function, args, options, name=node.path.replace(".", "_"))  # type: ignore[arg-type]
        return self._named(node, made)

    def parameter(self, node: Node, key: str = "") -> fx.Node:
        """Read the node's tensor `key`."""
        path, tensor = node.tensor_name(key), node.op.tensors()[key]
        owner, name = self._owner(path)
        numbers = torch.empty(tensor.shape, device="meta")
        if tensor.learnable:
            owner.register_parameter(name, nn.Parameter(numbers))
        else:
            owner.register_buffer(name, numbers)
        return self.code.get_attr(path)

    def constant(self, key: object, name: str, make: Callable[[], torch.Tensor]) -> fx.Node:
        """Read a constant, made once for each key."""
        if key not in self.constants:
            path = f"constants.{name}_{len(self.constants)}"
            owner, last = self._owner(path)
            owner.add_module(last, torch_ops.Constant(make()))
            self.constants[key] = self.code.call_module(path)
        return self.constants[key]

    def _owner(self, path: str) -> tuple[nn.Module, str]:
        """The module that holds `path`'s last name, made where it is not there yet."""
        owner = self.root
        *above, last = path.split(".")
        for name in above:
            if name not in owner._modules:
                owner.add_module(name, nn.Module())
            owner = owner.get_submodule(name)
        return owner, last

    def _named(self, node: Node, made: fx.Node) -> fx.Node:
        made.meta.update(type=str(node.type), path=node.path)
        return made


def _input(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.code.placeholder(node.path)


def _linear(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op = _of(node, Linear)
    return b.module(node, nn.Linear(op.d_in, op.d_out, bias=op.bias, device="meta"), *args)


def _conv(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op = _of(node, Conv2d)
    sides = (op.c_in, op.c_out, op.kernel, op.stride, op.padding)
    return b.module(node, nn.Conv2d(*sides, groups=op.groups, bias=op.bias, device="meta"), *args)


def _layer_norm(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op = _of(node, LayerNorm)
    return b.module(node, nn.LayerNorm(op.dim, op.eps, elementwise_affine=op.affine), *args)


def _batch_norm(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op = _of(node, BatchNorm)
    return b.module(node, torch_ops.ChannelBatchNorm(op.dim, op.eps, op.momentum), *args)


def _token_batch_norm(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op = _of(node, TokenBatchNorm)
    return b.module(node, nn.BatchNorm1d(op.num_tokens, op.eps, op.momentum), *args)


def _affine(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    weight, bias = (b.parameter(node, key) for key in ("weight", "bias"))
    if isinstance(node.op, TokenAffine):
        weight, bias = (b.code.call_function(torch.unsqueeze, (each, -1)) for each in (weight, bias))
    return b.call(node, torch.addcmul, bias, *args, weight)


def _cast(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    """A plain layer norm in an island of fp32 is torch's of the format around it: its statistics are fp32 anyway."""
    norm, to = node.inputs[0], _of(node, Cast).to
    if isinstance(norm.op, LayerNorm) and not norm.op.affine and isinstance(norm.inputs[0].op, Cast):
        before = norm.inputs[0].inputs[0]
        if before.type.dtype == to:
            x = args[0].args[0].args[0]  # type: ignore[union-attr]
            return b.call(node, F.layer_norm, x, (norm.op.dim,), eps=norm.op.eps)
    return b.call(node, torch.Tensor.to, *args, DTYPES[to])


def _activation(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    match _of(node, Activation).name:
        case "gelu_tanh":
            return b.call(node, F.gelu, *args, approximate="tanh")
        case name:
            return b.call(node, getattr(F, name), *args)


def _layer_scale(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, operator.mul, *args, b.parameter(node))


def _add_position(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, operator.add, *args, b.parameter(node))


def _prepend(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, torch_ops.prepend, b.parameter(node), *args)


def _drop_path(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.module(node, torch_ops.DropPath(_of(node, DropPath).rate), *args)


def _dropout(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.module(node, nn.Dropout(_of(node, Dropout).rate), *args)


def _reorder(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    """Planes and tokens are two views of one memory (channels last); any other change is one gather."""
    (x,), source, target = args, node.inputs[0].type.order, _of(node, Reorder).to
    assert source is not None
    if isinstance(source, Planes):
        x = b.call(node, torch.flatten, x, 2)
        x = b.call(node, torch.transpose, x, 1, 2)
    slots = target.slots()
    if slots != source.slots() or target.padded:
        x = _take(b, node, x, source, target)
    if isinstance(target, Planes):
        x = b.call(node, torch.transpose, x, 1, 2)
        x = b.call(node, torch.unflatten, x, 2, (target.height, target.width))
    return x


def _take(b: _Build, node: Node, x: fx.Node, source: Order, target: Order) -> fx.Node:
    where = {raster: slot for slot, raster in enumerate(source.slots()) if raster >= 0}
    padding = source.num_slots
    index = b.constant(
        ("take", source, target),
        "slots",
        lambda: torch.tensor([where[raster] if raster >= 0 else padding for raster in target.slots()]),
    )
    return b.call(node, torch_ops.take_padded if target.padded else torch_ops.take, x, index)


def _merge_groups(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, torch.reshape, *args, (-1, *node.type.shape))


def _slice(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    """Slices that cut a value as a whole are one split, whose gradient is one concatenation."""
    op, source = _of(node, Slice), node.inputs[0]
    slices = b.splits.get(source)
    if slices:
        if source not in b.split:
            sizes = [part.stop - part.start for part in slices]
            b.split[source] = b.code.call_function(torch.split, (*args, sizes), {"dim": -1})
        return b.call(node, operator.getitem, b.split[source], slices.index(op))
    return b.call(node, operator.getitem, *args, (Ellipsis, slice(op.start, op.stop)))


def _take_token(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    return b.call(node, operator.getitem, *args, (slice(None), _of(node, TakeToken).position))


def _mean_pool(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    axes = (2, 3) if isinstance(node.inputs[0].type.order, Planes) else (1,)
    return b.call(node, torch.mean, *args, axes)


def _attention(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op, (q, k, v, *bias) = _of(node, Attention), args
    return b.call(
        node,
        torch_ops.attend,
        *(q, k, v, bias[0] if bias else None),
        heads=op.heads,
        windows=windows_in(node.inputs[0].type),
        scale=op.scale,
    )


def _position_bias(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op = _of(node, RelativePositionBias)
    area = op.window[0] * op.window[1]
    rows = b.constant(("rows", op.window), "rows", lambda: torch.tensor(op.rows()).view(area, area))
    return b.call(node, torch_ops.position_bias, b.parameter(node), rows)


def _shift_mask(b: _Build, node: Node, args: list[fx.Node]) -> fx.Node:
    op = _of(node, ShiftMask)
    return b.constant(("mask", op.order), "mask", lambda: torch.from_numpy(op.value([], {})))


def _of(node: Node, kind: type[SomeOp]) -> SomeOp:
    """The node's op, known to be of `kind`."""
    assert isinstance(node.op, kind)
    return node.op


EMITTERS: dict[type[Op], Callable[[_Build, Node, list[fx.Node]], fx.Node]] = {
    Input: _input,
    Linear: _linear,
    Conv2d: _conv,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    TokenBatchNorm: _token_batch_norm,
    Affine: _affine,
    TokenAffine: _affine,
    Activation: _activation,
    Add: lambda b, node, args: b.call(node, operator.add, *args),
    LayerScale: _layer_scale,
    DropPath: _drop_path,
    Dropout: _dropout,
    Reorder: _reorder,
    MergeGroups: _merge_groups,
    Slice: _slice,
    PrependToken: _prepend,
    AddPosition: _add_position,
    TakeToken: _take_token,
    MeanPool: _mean_pool,
    Attention: _attention,
    RelativePositionBias: _position_bias,
    ShiftMask: _shift_mask,
    Constant: lambda b, node, args: b.parameter(node),
    Cast: _cast,
}
