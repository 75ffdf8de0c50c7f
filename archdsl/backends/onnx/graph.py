"""An ONNX graph under construction: nodes named by path, weights by parameter name, equal constants held once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from archdsl.backends.initial import Array
from archdsl.backends.onnx.dialects import PLAIN, Dialect
from archdsl.backends.onnx.opsets import USUAL, schema_of, since
from archdsl.errors import BackendError, Problem, at_argument
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ir.types import DType, TensorType
from archdsl.ops.tokens import Slice
from archdsl.passes.uses import Splits

Operand: TypeAlias = ir.Value | Array
"""What an emitter gets and gives: a value of the ONNX graph, or numbers known while emitting (a bias, a mask)."""

DTYPES: dict[DType, ir.DataType] = {
    "f32": ir.DataType.FLOAT,
    "f16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
    "i64": ir.DataType.INT64,
}


@dataclass
class Emission:
    """What the emitters write to. `node` is the node being emitted; its path begins every name.

    weights: every tensor of the graph by name
    batch: the size of the batch axis, or None when it is dynamic
    dialect: the forms that were measured to be fastest on the runtime
    opset: the version of the ops that are written
    splits: the values that are cut into slices as a whole, with the slices
    """

    weights: Mapping[str, Array]
    batch: int | None = None
    dialect: Dialect = PLAIN
    opset: int = USUAL
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: dict[str, ir.Value] = field(default_factory=dict)
    splits: Splits = field(default_factory=dict)
    split: dict[tuple[Node, Slice], ir.Value] = field(default_factory=dict)
    node: Node = field(init=False)
    _shared: dict[tuple[object, ...], ir.Value] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)

    def op(self, op_type: str, *inputs: Operand | None, name: str | None = None, **attributes: Any) -> ir.Value:
        """Add an ONNX node and return its only output. Its name is `path/name`, `name` being by default its type.

        inputs: None for one that is left out
        """
        return self.multi(op_type, *inputs, name=name, num_outputs=1, **attributes)[0]

    def multi(
        self, op_type: str, *inputs: Operand | None, name: str | None = None, num_outputs: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Like `op`, for a node of several outputs.

        Raises: BackendError when the opset has no such op, or not with so many inputs or such attributes
        """
        self._check(op_type, len(inputs), attributes)
        full = self._free(f"{self.node.path}/{name or op_type}")
        values = [None if x is None else self.value(x) for x in inputs]
        outputs = [ir.Value(name=full if num_outputs == 1 else f"{full}_{i}") for i in range(num_outputs)]
        attrs = ir.convenience.convert_attributes(attributes)
        self.nodes.append(ir.Node("", op_type, values, attrs, outputs=outputs, name=full))
        return outputs

    def knows(self, op_type: str) -> bool:
        """Whether the opset has an op of this type; else it is written in older ones."""
        return schema_of(op_type, self.opset) is not None

    def mean(self, x: Operand, *axes: int, keepdims: bool = False) -> ir.Value:
        """The mean over axes, counted with the batch axis. They are an input since opset 18, before an attribute."""
        if self.opset < 18:
            return self.op("ReduceMean", x, axes=list(axes), keepdims=int(keepdims))
        return self.op("ReduceMean", x, self.integers(*axes), keepdims=int(keepdims))

    def sum(self, x: Operand, axis: int) -> ir.Value:
        """The sum over an axis, which is kept with one place. The axis is an input since opset 13."""
        return self.op("ReduceSum", x, self.integers(axis), keepdims=1)

    def length(self, x: Operand, axis: int) -> ir.Value:
        """The length along an axis, which is kept with one place. The axis is an input since opset 18."""
        if self.opset < 18:
            return self.op("ReduceL2", x, axes=[axis], keepdims=1)
        return self.op("ReduceL2", x, self.integers(axis), keepdims=1)

    def value(self, x: Operand) -> ir.Value:
        """`x` as a value of the graph: numbers become a constant."""
        return x if isinstance(x, ir.Value) else self.constant(x)

    def constant(self, numbers: Array, name: str = "constant", dtype: DType | None = None) -> ir.Value:
        """An initializer that holds `numbers`; equal numbers are held once. Floats become `dtype`, by default the
        node's number format.
        """
        if numbers.dtype.kind == "f":
            numbers = numbers.astype(DTYPES[dtype or self.node.type.dtype].numpy(), copy=False)
        numbers = np.ascontiguousarray(numbers).reshape(numbers.shape)
        key = (numbers.dtype.str, numbers.shape, hashlib.blake2b(numbers.tobytes(), digest_size=16).digest())
        if key not in self._shared:
            self._shared[key] = self._initializer(self._free(f"{self.node.path}/{name}"), numbers)
        return self._shared[key]

    def integers(self, *numbers: int, name: str = "axes") -> ir.Value:
        """A constant int64 vector: a shape, axes, sizes."""
        return self.constant(np.array(numbers, np.int64), name)

    def weight(self, key: str = "") -> Array:
        """The numbers of the node's tensor `key`."""
        return np.asarray(self.weights[self.node.tensor_name(key)])

    def known(self, op: Op) -> Array | None:
        """The op's numbers, known while emitting: a position bias, a mask, a constant."""
        return op.value([], {key: self.weight(key) for key in op.tensors()})

    def parameter(self, key: str = "") -> ir.Value:
        """The node's tensor `key` as an initializer of that name."""
        return self._parameter(self.node.tensor_name(key), self.weight(key))

    def transposed(self, key: str) -> ir.Value:
        """The node's matrix `key` as an initializer, transposed (a view until it is written) and named so."""
        return self._parameter(f"{self.node.tensor_name(key)}.T", self.weight(key).T)

    def cast(self, x: ir.Value, dtype: DType) -> ir.Value:
        """`x` in another number format."""
        return self.op("Cast", x, to=DTYPES[dtype])

    def reshape(self, x: Operand, *shape: int) -> ir.Value:
        """`x` in another shape, given without the batch axis."""
        return self.op("Reshape", x, self.integers(*([0] if self.lead else []), *shape, name="shape"))

    def transpose(self, x: Operand, *order: int) -> ir.Value:
        """`x` with its axes in another order, counted without the batch axis."""
        return self.op("Transpose", x, perm=[0, *(i + 1 for i in order)] if self.lead else list(order))

    @property
    def lead(self) -> int:
        """How many axes come before those of the node's type: 1 for the batch, 0 for a value without one."""
        return int(self.node.type.batched)

    def typed(self, value: ir.Value, type: TensorType, name: str) -> None:
        """Give `value`, made by the node being emitted, its type and its name."""
        value.name = name
        value.dtype = DTYPES[type.dtype]
        batch: list[int | str] = [self.batch or "batch"] if type.batched else []
        value.shape = ir.Shape([*batch, *type.shape])

    def has_rows(self, type: TensorType) -> bool:
        """Whether values of this type are held as rows of tokens, [B * N, C], between the ops that can read those."""
        return self.dialect.tokens == "rows" and self.batch is not None and type.batched and len(type.shape) == 2

    def as_rows(self, x: Operand, type: TensorType) -> ir.Value:
        """[B, N, C] -> [B * N, C]"""
        return self.op("Reshape", x, self.integers((self.batch or 1) * type.tokens, type.channels, name="shape"))

    def as_images(self, x: Operand, type: TensorType) -> ir.Value:
        """[B * N, C] -> [B, N, C]"""
        return self.op("Reshape", x, self.integers(self.batch or 1, *type.shape, name="shape"))

    def _check(self, op_type: str, num_inputs: int, attributes: Mapping[str, Any]) -> None:
        schema = schema_of(op_type, self.opset)
        if schema is not None and num_inputs <= schema.max_input and not attributes.keys() - schema.attributes.keys():
            return
        if schema is not None:
            message = f"{op_type} has another form in opset {self.opset}"
            hint = f"its inputs: {', '.join(x.name for x in schema.inputs)}; attributes: {', '.join(schema.attributes)}"
        elif (first := since(op_type)) is not None:
            message = f"{op_type} came with opset {first}, but {self.opset} is written"
            hint = f'use --opset {first}, or let its emitter ask `knows("{op_type}")` and write it in older ops'
        else:
            message, hint = f"onnx has no op {op_type}", "write it in ops that onnx has"
        place = at_argument("onnx", self.node.path)
        raise BackendError(Problem(place, "cannot-build", message, hint, self.node.path))

    def _parameter(self, name: str, numbers: Array) -> ir.Value:
        if name not in self.initializers:
            self._initializer(name, numbers.astype(DTYPES[self.node.type.dtype].numpy(), copy=False))
        return self.initializers[name]

    def _initializer(self, name: str, numbers: Array) -> ir.Value:
        tensor = ir.Tensor(numbers, name=name)
        self.initializers[name] = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
        )
        return self.initializers[name]

    def _free(self, name: str) -> str:
        """`name`, with a number behind it from the second time on."""
        self._names[name] = count = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"


Emitters: TypeAlias = dict[type[Op], Callable[..., Any]]
"""By op, what writes a node: (emission, op, the values it reads) -> its value."""
