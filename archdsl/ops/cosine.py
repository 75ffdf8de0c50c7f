"""What cosine attention is made of: heads of length 1, and position biases by an MLP on log-spaced offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

from archdsl.errors import RuleBroken
from archdsl.ir.op import ZEROS, Init, Op, ParamSpec, need_tokens
from archdsl.ir.types import TensorType
from archdsl.ops.attention import table_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_LOG_SCALE = log(100)
"""Beyond it the learnt logarithm of the scale of the logits changes nothing."""
SHARPEST = 16.0
"""What position biases are below: they are SHARPEST * sigmoid(...)."""


@dataclass(frozen=True)
class HeadNorm(Op):
    """Each head of each token divided by its length: x / max(|x|, eps).

    scaled: multiply each head by exp(min(s, ln 100)), with a learnt number s for each head that starts at ln 10

    Shapes: [..., heads * d] -> the same
    Source: SwinV2, arXiv 2111.09883, equation 2; torch.nn.functional.normalize
    """

    identity = "HeadNorm(heads, scaled, eps)"
    kind = "norm"
    order_rule = "tokenwise"
    fp32_island = True

    heads: int
    scaled: bool = False
    eps: float = 1e-12

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_tokens("HeadNorm", x)
        if x.channels % self.heads:
            raise RuleBroken(f"{self.heads} heads must divide {x.channels} channels", rule="divisible", field="heads")
        return x

    def tensors(self) -> Mapping[str, ParamSpec]:
        return {"": ParamSpec((self.heads, 1, 1), Init("constant", log(10)))} if self.scaled else {}


@dataclass(frozen=True)
class ContinuousPositionBias(Op):
    """SHARPEST * sigmoid(g(offset)) for each head and each pair of places of a window, g being a learnt MLP.

    g widens (y, x) to `hidden`, takes ReLU, and gives a number for each head. Offsets are divided by the longest one
    within the `pretrained` window, times 8, and x -> sign(x) log2(|x| + 1) / 3.

    Shapes: nothing -> [1, heads, h * w, h * w]
    Cost:   (2h - 1)(2w - 1) * hidden * (2 + heads) MACs, once for a batch
    Source: SwinV2, arXiv 2111.09883, equations 3 and 4; 8, ReLU, SHARPEST: the authors' code
    """

    identity = "ContinuousPositionBias(window, heads, pretrained, hidden)"
    kind = "attention"

    window: tuple[int, int]
    heads: int
    pretrained: tuple[int, int]
    hidden: int = 512

    def infer(self, *inputs: TensorType) -> TensorType:
        area = self.window[0] * self.window[1]
        return TensorType((1, self.heads, area, area), batched=False)

    def tensors(self) -> Mapping[str, ParamSpec]:
        start = Init("normal", 0.02)
        return {
            "0.weight": ParamSpec((self.hidden, 2), start),
            "0.bias": ParamSpec((self.hidden,), ZEROS),
            "2.weight": ParamSpec((self.heads, self.hidden), start),
        }

    def macs(self, inputs: Sequence[TensorType], output: TensorType) -> int:
        return (2 * self.window[0] - 1) * (2 * self.window[1] - 1) * self.hidden * (2 + self.heads)

    def offsets(self) -> NDArray[Any]:
        """What g reads, row by row of the table of offsets: [(2h - 1)(2w - 1), 2], fp32."""
        import numpy as np

        axes = (
            8 * np.arange(1 - side, side) / max(whole - 1, 1)
            for side, whole in zip(self.window, self.pretrained, strict=True)
        )
        y, x = (np.sign(axis) * np.log2(np.abs(axis) + 1) / 3 for axis in axes)
        pairs: NDArray[Any] = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)
        return pairs

    def rows(self) -> list[int]:
        """The row of `offsets` of each pair of places, [h * w * h * w]."""
        return list(table_rows(self.window))

    def value(self, inputs: Sequence[NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        import numpy as np

        weight, bias, out = (tensors[key].astype(np.float64) for key in ("0.weight", "0.bias", "2.weight"))
        table = np.maximum(self.offsets() @ weight.T + bias, 0) @ out.T
        by_head = np.ascontiguousarray((SHARPEST / (1 + np.exp(-table))).T.astype(np.float32))
        area = self.window[0] * self.window[1]
        return by_head[:, np.array(self.rows())].reshape(1, self.heads, area, area)
