"""Fields that many parts share: their types, limits and meaning."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

FROM_DATA = "data"
"""What `head.classes` is until the data are known: a part is never lowered with it."""

_MOST_CLASSES = 10_000_000

Heads = Annotated[int, Field(ge=1, le=1024, description="attention heads; must divide the width")]

_WINDOW = r"^[0-9]{1,4}x[0-9]{1,4}$"
_MOST_SIDE = 8192
_Side = Annotated[int, Field(ge=1, le=_MOST_SIDE)]


def _sides(value: Any) -> Any:
    """`7x14` as (7, 14)."""
    if isinstance(value, tuple):
        return value
    if re.match(_WINDOW, value, re.ASCII) is None or value.endswith("\n"):
        raise PydanticCustomError("window", "Input should be a whole number or height x width, such as `7x14`")
    height, width = value.split("x")
    return int(height), int(width)


def _plain(window: int | tuple[int, int]) -> int | tuple[int, int]:
    """`7x7` as 7, which is the same network."""
    return window[0] if isinstance(window, tuple) and window[0] == window[1] else window


Window = Annotated[
    Annotated[_Side, Tag("side")] | Annotated[tuple[_Side, _Side], BeforeValidator(_sides), Tag("sides")],
    Discriminator(lambda value: "sides" if isinstance(value, str | tuple) else "side"),
    AfterValidator(_plain),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": _MOST_SIDE}, {"type": "string", "pattern": _WINDOW}]}
    ),
    Field(description="side of a window, in tokens; `7x14`: its height x width"),
]
"""A number, or (height, width) when they differ; `ir.order.window_order` takes both."""

Kernel = Annotated[int, Field(ge=1, le=255, description="side of a convolution kernel")]
Stride = Annotated[int, Field(ge=1, le=31, description="how many places a convolution goes on at a time")]
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
