"""Attention within the windows of the token order, and what is added to its logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from archdsl.errors import RuleBroken
from archdsl.ir.op import Init, Op, ParamSpec, need_tokens
from archdsl.ir.order import Windows
from archdsl.ir.types import TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASKED = -100.0
"""What a shifted window adds to the logit of two tokens that must not meet (Swin's value; not minus infinity)."""


@dataclass(frozen=True)
class Attention(Op):
    """softmax(q k^T * scale + bias) v, for each head, within each window of the tokens' order.

    Raster tokens and plain sequences are one window. The bias is for all images:
    [1 or windows, heads, queries, keys]. The softmax and the sum before it are computed in fp32, whatever the format
    of q, k and v: backends cast there.

    Shapes: q [N, heads * d], k [N', heads * d], v [N', heads * e] (, bias) -> [N, heads * e]
    Cost:   windows * heads * queries * keys * (d + e) MACs
    Source: arXiv 1706.03762; within windows arXiv 2103.14030
    """

    identity = "Attention(heads, scale)"
    kind = "attention"

    heads: int
    scale: float

    def infer(self, *inputs: TensorType) -> TensorType:
        q, k, v, *bias = inputs
        for x in (q, k, v):
            need_tokens("Attention", x)
            if x.channels % self.heads:
                raise RuleBroken(
                    f"{self.heads} heads must divide {x.channels} channels", rule="divisible", field="heads"
                )
        if q.channels != k.channels or k.tokens != v.tokens or windows_in(q) != windows_in(k):
            raise RuleBroken(f"q, k and v do not fit: q = {q}, k = {k}, v = {v}")
        for b in bias:
            want = (self.heads, q.tokens // windows_in(q), k.tokens // windows_in(k))
            if b.batched or b.shape[1:] != want or b.shape[0] not in (1, windows_in(q)):
                raise RuleBroken(f"the bias must be [1 or {windows_in(q)}, {', '.join(map(str, want))}], but got {b}")
        return q.with_channels(v.channels)

    def macs(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        q, k, v = inputs[:3]
        return q.tokens * (k.tokens // windows_in(k)) * (q.channels + v.channels)

    def onnx_tool_flops(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        """Scale q, two products, add each term of the bias, softmax (18 an element)."""
        q, k, _, *terms = inputs
        logits = self.heads * q.tokens * (k.tokens // windows_in(q))
        return q.size + self.macs(inputs, output) + logits * (18 + len(terms))


@dataclass(frozen=True)
class RelativePositionBias(Op):
    """A learnt bias for each head and each offset between two places of a window, spread to all pairs of places.

    The table has (2h - 1)(2w - 1) rows; the row of the pair (a, b) is
    (y_a - y_b + h - 1)(2w - 1) + (x_a - x_b + w - 1).

    Shapes: nothing -> [1, heads, h * w, h * w]
    Source: Swin, arXiv 2103.14030
    """

    identity = "RelativePositionBias(window, heads, init)"
    kind = "attention"

    window: tuple[int, int]
    heads: int
    init: Init = Init("normal", 0.02)

    def infer(self, *inputs: TensorType) -> TensorType:
        area = self.window[0] * self.window[1]
        return TensorType((1, self.heads, area, area), batched=False)

    def tensors(self) -> Mapping[str, ParamSpec]:
        h, w = self.window
        return {"": ParamSpec(((2 * h - 1) * (2 * w - 1), self.heads), self.init)}

    def value(self, inputs: Sequence[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        import numpy as np

        area = self.window[0] * self.window[1]
        by_head: NDArray[Any] = np.ascontiguousarray(tensors[""].T)
        return by_head[:, np.array(table_rows(self.window))].reshape(1, self.heads, area, area)

    def rows(self) -> list[int]:
        """The table row of each pair of places, [h * w * h * w]."""
        return list(table_rows(self.window))

    def onnx_tool_params(self, output: TensorType) -> int:
        """The table is expanded to the full bias."""
        return output.size


@dataclass(frozen=True)
class ShiftMask(Op):
    """MASKED where two tokens of a shifted window come from different sides of the image, else 0.

    Shapes: nothing -> [windows, 1, h * w, h * w]
    Source: Swin, arXiv 2103.14030, figure 4
    """

    identity = "ShiftMask(order)"
    kind = "attention"

    order: Windows

    def infer(self, *inputs: TensorType) -> TensorType:
        area = self.order.window[0] * self.order.window[1]
        return TensorType((self.order.num_windows, 1, area, area), batched=False)

    def value(self, inputs: Sequence[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        import numpy as np

        regions = np.array(self.order.regions()).reshape(self.order.num_windows, 1, -1)
        return np.where(regions[..., :, None] == regions[..., None, :], np.float32(0), np.float32(MASKED))

    def constants(self) -> int:
        area = self.order.window[0] * self.order.window[1]
        return self.order.num_windows * area * area


def windows_in(x: TensorType) -> int:
    """Into how many windows the order of `x` cuts its tokens (1 for a sequence)."""
    return x.order.num_windows if x.order is not None else 1


def places_first(x: TensorType) -> bool:
    """Whether the tokens of `x` are in windows, with the place in the window outermost."""
    return isinstance(x.order, Windows) and x.order.places_first


@lru_cache(maxsize=64)
def table_rows(window: tuple[int, int]) -> tuple[int, ...]:
    """For each pair of places of a window the row of a table of offsets, [h * w * h * w]."""
    h, w = window
    places = [(y, x) for y in range(h) for x in range(w)]
    return tuple((y - v + h - 1) * (2 * w - 1) + (x - u + w - 1) for y, x in places for v, u in places)
