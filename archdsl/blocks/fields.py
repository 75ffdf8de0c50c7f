"""Fields that many parts share: their types, limits and meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Heads = Annotated[int, Field(ge=1, le=1024, description="attention heads; must divide the width")]
Window = Annotated[int, Field(ge=1, le=8192, description="side of a window, in tokens")]
Kernel = Annotated[int, Field(ge=1, le=255, description="side of a convolution kernel")]
Dim = Annotated[int, Field(ge=1, le=65536, description="width: channels of a token")]
Classes = Annotated[int, Field(ge=1, le=10_000_000, description="number of classes")]
Ratio = Annotated[float, Field(gt=0, le=64, description="hidden width of the MLP as a multiple of the width")]
Rate = Annotated[float, Field(ge=0, lt=1, description="probability of dropping")]
Eps = Annotated[float, Field(gt=0, le=1, description="what a norm adds to the variance")]

NormName = Literal["layer", "batch", "none"]
NormAxis = Literal["channel", "token"]
"""For batch norm: one statistic per channel (the paper's text), or per token position (Swin-Free's released code)."""

ActivationName = Literal["gelu", "gelu_tanh", "relu", "silu", "hardswish"]
