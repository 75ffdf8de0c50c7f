"""Fields that many parts share: their types, limits and meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema, WrapValidator

FROM_DATA = "data"
"""What `head.classes` is until the data are known: a part is never lowered with it."""

_MOST_CLASSES = 10_000_000

Heads = Annotated[int, Field(ge=1, le=1024, description="attention heads; must divide the width")]
Window = Annotated[int, Field(ge=1, le=8192, description="side of a window, in tokens")]
Kernel = Annotated[int, Field(ge=1, le=255, description="side of a convolution kernel")]
Dim = Annotated[int, Field(ge=1, le=65536, description="width: channels of a token")]
Classes = Annotated[
    int,
    Field(ge=1, le=_MOST_CLASSES),
    WrapValidator(lambda value, number: value if value == FROM_DATA else number(value)),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": _MOST_CLASSES}, {"const": FROM_DATA}]}),
    Field(description="number of classes; `data`: as many as the data have, put in by train, search and eval"),
]
Ratio = Annotated[float, Field(gt=0, le=64, description="hidden width of the MLP as a multiple of the width")]
Rate = Annotated[float, Field(ge=0, lt=1, description="probability of dropping")]
Eps = Annotated[float, Field(gt=0, le=1, description="what a norm adds to the variance")]

NormName = Literal["layer", "batch", "none"]
NormAxis = Literal["channel", "token"]
"""For batch norm: one statistic per channel (the paper's text), or per token position (Swin-Free's released code)."""

ActivationName = Literal["gelu", "gelu_tanh", "relu", "silu", "hardswish"]
