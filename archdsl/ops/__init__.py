"""What a node can be. One file a family; `OPS` lists them all, so that tests can ask every backend for every op."""

from archdsl.ir.graph import Input
from archdsl.ir.op import Op
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, TokenAffine, TokenBatchNorm
from archdsl.ops.pointwise import Activation, Add, Dropout, DropPath, LayerScale
from archdsl.ops.tokens import AddPosition, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken
from archdsl.ops.values import Cast, Constant

OPS: tuple[type[Op], ...] = (
    Input,
    Linear,
    Conv2d,
    LayerNorm,
    BatchNorm,
    TokenBatchNorm,
    Affine,
    TokenAffine,
    Activation,
    Add,
    LayerScale,
    DropPath,
    Dropout,
    Reorder,
    MergeGroups,
    Slice,
    PrependToken,
    AddPosition,
    TakeToken,
    MeanPool,
    Attention,
    RelativePositionBias,
    ShiftMask,
    Constant,
    Cast,
)

__all__ = [
    "OPS",
    "Activation",
    "Add",
    "AddPosition",
    "Affine",
    "Attention",
    "BatchNorm",
    "Cast",
    "Constant",
    "Conv2d",
    "DropPath",
    "Dropout",
    "Input",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "MeanPool",
    "MergeGroups",
    "PrependToken",
    "RelativePositionBias",
    "Reorder",
    "ShiftMask",
    "Slice",
    "TakeToken",
    "TokenAffine",
    "TokenBatchNorm",
]
