"""Overlapping patches of a map as tokens, and attention whose cost grows with the tokens, not with their square."""

# N = tokens, d = channels of a part, m = features of a part

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archdsl.errors import RuleBroken
from archdsl.ir.op import Init, Op, ParamSpec, need_channels, need_tokens
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType


@dataclass(frozen=True)
class Unfold(Op):
    """Each neighbourhood of kernel x kernel places as one token, every `stride` places; what lies outside the map is 0.

    Channels of a token: those of the first channel row by row, then those of the second.

    Shapes: [H * W, C] -> [h * w, C * kernel^2], with h = (H + 2 padding - kernel) // stride + 1
    Raises: RuleBroken when the tokens are not a map in raster order, or the kernel does not fit
    Source: torch.nn.functional.unfold
    """

    identity = "Unfold(kernel, stride, padding)"
    onnx_tool_free = True
    kind = "reorder"

    kernel: int
    stride: int
    padding: int = 0

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if not isinstance(x.order, Raster):
            raise RuleBroken(f"Unfold needs a map in raster order, but got {x}")
        height, width = (
            (side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (x.order.height, x.order.width)
        )
        if height < 1 or width < 1:
            raise RuleBroken(f"a kernel of {self.kernel} does not fit into {x}", hint="use a larger input")
        return x.with_channels(x.channels * self.kernel**2).in_order(Raster(height, width))

    def places(self, order: Raster) -> list[int]:
        """For each place of each new token the token of the map, [h * w * kernel^2]; `num_slots` outside the map."""
        height, width = ((s + 2 * self.padding - self.kernel) // self.stride + 1 for s in (order.height, order.width))
        near = [(dy, dx) for dy in range(self.kernel) for dx in range(self.kernel)]
        corners = [
            (y * self.stride - self.padding, x * self.stride - self.padding)
            for y in range(height)
            for x in range(width)
        ]
        return [
            (y + dy) * order.width + x + dx
            if 0 <= y + dy < order.height and 0 <= x + dx < order.width
            else order.num_slots
            for y, x in corners
            for dy, dx in near
        ]


@dataclass(frozen=True)
class PositiveFeatures(Op):
    """exp(W x - |x|^2 / 2) / sqrt(m) for each part of the channels: their products stand for the softmax's exp(q · k).

    W is drawn at the start and never learnt: rows at right angles to each other, sqrt(m) long.

    Shapes: [N, parts * dim] -> [N, parts * features]
    Cost:   tokens * parts * dim * features MACs
    Source: Performer, arXiv 2009.14794, lemma 1 and section 2.4; as T2T-ViT has it, arXiv 2101.11986
    """

    identity = "PositiveFeatures(dim, features, parts)"
    kind = "attention"
    order_rule = "tokenwise"
    fp32_island = True

    dim: int
    features: int
    parts: int = 1

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("PositiveFeatures", x)
        need_channels("PositiveFeatures", x, self.parts * self.dim)
        return x.with_channels(self.parts * self.features)

    def tensors(self) -> Mapping[str, ParamSpec]:
        start = Init("orthogonal", self.features**0.5)
        return {"": ParamSpec((self.features, self.dim), start, learnable=False)}

    def macs(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        return output.size * self.dim


@dataclass(frozen=True)
class LinearAttention(Op):
    """q (k^T v) / (q (k^T 1) + eps) over all tokens, for features q and k that are not negative.

    Shapes: q [N, m], k [N', m], v [N', C] -> [N, C]
    Cost:   N' * m * C + N * m * C + N * m MACs
    Source: Performer, arXiv 2009.14794, equation 3; eps: T2T-ViT's code
    """

    identity = "LinearAttention(eps)"
    kind = "attention"
    fp32_island = True

    eps: float = 1e-8

    def infer(self, *inputs: TensorType) -> TensorType:
        q, k, v = inputs
        for x in inputs:
            need_tokens("LinearAttention", x)
        if q.channels != k.channels or k.tokens != v.tokens or any(x.order and x.order.padded for x in inputs):
            raise RuleBroken(f"q, k and v do not fit: q = {q}, k = {k}, v = {v}")
        return q.with_channels(v.channels)

    def macs(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        q, k, v = inputs
        return k.size * v.channels + q.size * v.channels + q.size
