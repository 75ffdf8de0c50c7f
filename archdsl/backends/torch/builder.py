"""What the emitters write to: a module tree and its code under construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import torch
from torch import fx, nn

from archdsl.backends.torch import ops as torch_ops
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ir.types import DType
from archdsl.passes.uses import Splits

SomeOp = TypeVar("SomeOp", bound=Op)

DTYPES: dict[DType, torch.dtype] = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
}


@dataclass
class ModuleBuilder:
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
            owner.add_module(last, torch_ops.FixedTensor(make()))
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


Emitters: TypeAlias = dict[type[Op], Callable[[ModuleBuilder, Node, list[fx.Node]], fx.Node]]
"""By op, what writes a node: (builder, node, the values it reads) -> its value."""


def op_of(node: Node, kind: type[SomeOp]) -> SomeOp:
    """The node's op, known to be of `kind`."""
    assert isinstance(node.op, kind)
    return node.op
