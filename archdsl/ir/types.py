"""What flows along an edge of the graph: a shape, a number format and the order of the tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal

from archdsl.ir.identity import Identified
from archdsl.ir.order import Order, Planes

DType = Literal["f32", "f16", "bf16", "i64"]

SIZE_BYTES: dict[DType, int] = {"f32": 4, "f16": 2, "bf16": 2, "i64": 8}


@dataclass(frozen=True)
class TensorType(Identified):
    """The type of a value.

    shape: without the batch axis, which is symbolic and always first, e.g. (3136, 96) for `[B, 3136, 96]`
    order: how the tokens (or planes) of a map are laid out; None for values that are not a map
    batched: False for values that are the same for every image (a position bias, a mask); they have no batch axis
    """

    identity: ClassVar[str] = "TensorType(shape, dtype, order, batched)"

    shape: tuple[int, ...]
    dtype: DType = "f32"
    order: Order | None = None
    batched: bool = True

    @property
    def channels(self) -> int:
        """The width C of a map, a sequence or a vector."""
        return self.shape[0] if isinstance(self.order, Planes) else self.shape[-1]

    @property
    def tokens(self) -> int:
        """The number of token slots N (1 for a vector)."""
        return prod(self.shape) // self.channels

    @property
    def size(self) -> int:
        """Elements for one image."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes for one image."""
        return self.size * SIZE_BYTES[self.dtype]

    def in_order(self, order: Order) -> TensorType:
        """The same features in another order."""
        c = self.channels
        shape = (c, order.height, order.width) if isinstance(order, Planes) else (order.num_slots, c)
        return TensorType(shape, self.dtype, order, self.batched)

    def with_channels(self, channels: int) -> TensorType:
        """The same map or sequence, `channels` wide."""
        if isinstance(self.order, Planes):
            return TensorType((channels, *self.shape[1:]), self.dtype, self.order, self.batched)
        return TensorType((*self.shape[:-1], channels), self.dtype, self.order, self.batched)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same value in another number format."""
        return replace(self, dtype=dtype)

    def __str__(self) -> str:
        axes = ", ".join((*(["B"] if self.batched else []), *map(str, self.shape)))
        return f"{self.dtype}[{axes}]" + (f" {self.order}" if self.order else "")
