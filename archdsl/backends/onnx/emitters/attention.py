"""Attention within windows: as two products around a softmax on four axes, or as one op.

The windows join the batch axis, [B * W, h, n, d], and a bias that all of them share is added by broadcasting. When the
bias differs by window that would repeat it for each image, so then they join the heads, [B, W * h, n, d], and products
are taken in any case: the op on [B, W * h, n, d] needs the same transposes, and is slower. For one image the windows
always join the batch. TensorRT fuses more where the windows stay in the batch and have an axis of their own,
[B, W, h, n, m], for the addition alone. Which form runtimes are given, and how they compare, is in `dialects`.

k is transposed like q and v and then once more for the product, because OpenVINO and TensorRT make the second one part
of the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from archdsl.backends.onnx.graph import Emission, Emitters, Operand
from archdsl.ir.graph import Node
from archdsl.ir.types import TensorType
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask, places_first, windows_in

# Axes in the comments: B = batch, W = windows, h = heads, n = tokens of a window (m for keys), d = channels of a head


def _attention(e: Emission, op: Attention, q: Operand, k: Operand, v: Operand, *bias: Operand) -> Operand:
    """softmax(scale * q k^T + bias) v. In f16 and bf16, the bias is added and the softmax taken in f32."""
    windows = WindowAxes(e, op.heads, windows_in(e.node.type), any(x.type.shape[0] > 1 for x in e.node.inputs[3:]))
    added = windows.bias(*bias)
    one_op = e.dialect.attention == "op" and e.knows("Attention") and not windows.in_heads
    return (_one_op if one_op else _products)(e, op, windows, added, q, k, v)


def _products(e: Emission, op: Attention, w: WindowAxes, bias: ir.Value | None, *qkv: Operand) -> Operand:
    q, k, v = (w.heads_of(x, node.type) for x, node in zip(qkv, e.node.inputs[:3], strict=True))
    if op.scale != 1:
        q = e.op("Mul", q, e.constant(np.array(op.scale, np.float32), "scale"))
    logits = e.op("MatMul", q, e.op("Transpose", k, perm=[0, 1, 3, 2]), name="logits")
    narrow = e.node.type.dtype != "f32"
    if narrow:
        logits = e.cast(logits, "f32")
    on_axis = w.own_bias_in_images and not w.in_heads
    if on_axis:
        logits = w.on_axis(logits)
    if bias is not None:
        logits = e.op("Add", logits, bias)
    shares = e.op("Softmax", logits, axis=-1)
    if narrow:
        shares = e.cast(shares, e.node.type.dtype)
    if on_axis:
        shares = w.off_axis(shares)
    return w.joined(e.op("MatMul", shares, v, name="mixed"))


def _one_op(e: Emission, op: Attention, w: WindowAxes, bias: ir.Value | None, *qkv: Operand) -> Operand:
    """On [B * W, n, h * d], which needs no transpose."""
    how: dict[str, Any] = {"scale": op.scale}
    if e.node.type.dtype != "f32":
        how["softmax_precision"] = int(ir.DataType.FLOAT)
    mask = () if bias is None else (bias,)
    parts = [w.tokens_of(x, node.type) for x, node in zip(qkv, e.node.inputs[:3], strict=True)]
    mixed = e.op("Attention", *parts, *mask, q_num_heads=op.heads, kv_num_heads=op.heads, **how)
    return w.images(mixed)


@dataclass(frozen=True)
class WindowAxes:
    """Tokens of a value [B, W * n, h * d] put into windows.

    own_bias: the bias differs by window
    """

    e: Emission
    heads: int
    number: int
    own_bias: bool

    @property
    def places_first(self) -> bool:
        """Whether the place in a window is held outermost."""
        return places_first(self.e.node.type)

    @property
    def _image(self) -> tuple[int, ...]:
        """The batch axis in the shape of a Reshape that takes windows apart; none for one image."""
        return () if self.e.batch == 1 else (self.e.batch or -1,)

    @property
    def _heads_in(self) -> tuple[int, int]:
        """The first two axes of the products: B * W and h, or B and W * h."""
        if self.in_heads:
            return self.e.batch or -1, self.number * self.heads
        return self._first, self.heads

    @property
    def in_heads(self) -> bool:
        """Whether the windows join the heads, not the batch."""
        return self.own_bias_in_images and self.e.dialect.bias_by_window == "in_heads"

    @property
    def own_bias_in_images(self) -> bool:
        """Whether the bias differs by window, and there may be several images."""
        return self.own_bias and self.number > 1 and self.e.batch != 1

    def tokens_of(self, x: Operand, type: TensorType) -> Operand:
        """[B * W, n, h * d]"""
        if self.number == 1 and not self._rows:
            return x
        return self._reshape(x, self._first, type.tokens // self.number, type.channels)

    def heads_of(self, x: Operand, type: TensorType) -> ir.Value:
        """[B * W, h, n, d] or [B, W * h, n, d]"""
        e, n, d = self.e, type.tokens // self.number, type.channels // self.heads
        if self.places_first:
            split = self._reshape(x, *self._image, n, self.number, self.heads, d)
            turned = e.op(
                "Transpose", split, perm=[*range(lead := len(self._image)), *(lead + i for i in (1, 2, 0, 3))]
            )
            return turned if self.e.batch == 1 else self._reshape(turned, *self._heads_in, n, d)
        if self.in_heads:
            split = self._reshape(x, self._images, self.number, n, self.heads, d)
            return self._reshape(e.op("Transpose", split, perm=[0, 1, 3, 2, 4]), 0, self.number * self.heads, n, d)
        return e.op("Transpose", self._reshape(x, self._first, n, self.heads, d), perm=[0, 2, 1, 3])

    def joined(self, x: Operand) -> ir.Value:
        """The opposite of `heads_of`, for the node's own type."""
        e, type = self.e, self.e.node.type
        n, d = type.tokens // self.number, type.channels // self.heads
        if self.places_first:
            if self.e.batch != 1:
                x = self._reshape(x, self.e.batch or -1, self.number, self.heads, n, d)
            lead = len(self._image)
            turned = e.op("Transpose", x, perm=[*range(lead), *(lead + i for i in (2, 0, 1, 3))])
            return e.as_rows(turned, type) if self._rows else self._reshape(turned, self.e.batch or -1, *type.shape)
        if self.in_heads:
            split = self._reshape(x, 0, self.number, self.heads, n, d)
            return self._put_together(e.op("Transpose", split, perm=[0, 1, 3, 2, 4]))
        return self._put_together(e.op("Transpose", x, perm=[0, 2, 1, 3]))

    def on_axis(self, logits: ir.Value) -> ir.Value:
        """[B * W, h, n, m] -> [B, W, h, n, m]"""
        return self._reshape(logits, self.e.batch or -1, self.number, self.heads, *self._pairs)

    def off_axis(self, shares: ir.Value) -> ir.Value:
        """[B, W, h, n, m] -> [B * W, h, n, m]"""
        return self._reshape(shares, self._first, self.heads, *self._pairs)

    def images(self, x: ir.Value) -> ir.Value:
        """The opposite of `tokens_of`, for the node's own type."""
        return x if self.number == 1 and not self._rows else self._put_together(x)

    def bias(self, *terms: Operand) -> ir.Value | None:
        """The sum of the terms as [1 or W, h, n, m] or [1, W * h, n, m], in f32; None for no terms."""
        if not terms:
            return None
        e = self.e
        (total, *others) = (self._in_f32(x, node) for x, node in zip(terms, e.node.inputs[3:], strict=True))
        for other in others:
            total = e.op("Add", self._value(total), self._value(other))
        if self.in_heads:
            shape = (1, self.number * self.heads, *e.node.inputs[3].type.shape[2:])
            total = total.reshape(shape) if isinstance(total, np.ndarray) else self._reshape(total, *shape)
        return self._value(total)

    def _value(self, bias: Operand) -> ir.Value:
        return self.e.constant(bias, "bias", "f32") if isinstance(bias, np.ndarray) else bias

    def _in_f32(self, x: Operand, node: Node) -> Operand:
        return x if isinstance(x, np.ndarray) or node.type.dtype == "f32" else self.e.cast(x, "f32")

    @property
    def _pairs(self) -> tuple[int, int]:
        """Queries and keys of a window."""
        q, k = (x.type.tokens // self.number for x in self.e.node.inputs[:2])
        return q, k

    @property
    def _rows(self) -> bool:
        return self.e.has_rows(self.e.node.type)

    @property
    def _images(self) -> int:
        """The batch axis in the shape of a Reshape: 0 keeps it."""
        return (self.e.batch or 0) if self._rows else 0

    @property
    def _first(self) -> int:
        """B * W in the shape of a Reshape: 0 keeps the axis, -1 infers it."""
        if self.number == 1:
            return self._images
        return self.e.batch * self.number if self.e.batch else -1

    def _put_together(self, x: ir.Value) -> ir.Value:
        if self._rows:
            return self.e.as_rows(x, self.e.node.type)
        kept = self.number == 1 or self.in_heads
        return self._reshape(x, 0 if kept else self.e.batch or -1, *self.e.node.type.shape)

    def _reshape(self, x: Operand, *shape: int) -> ir.Value:
        return self.e.op("Reshape", x, self.e.integers(*shape, name="shape"))


EMITTERS: Emitters = {
    Attention: _attention,
    RelativePositionBias: Emission.known,
    ShiftMask: Emission.known,
}
