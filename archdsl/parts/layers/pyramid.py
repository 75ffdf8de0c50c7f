"""Feature pyramids: maps of one image, finest first, that necks send upon each other."""

from __future__ import annotations

from typing import Literal

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.pooling import Resize
from archdsl.parts.flow import Flow


def need_maps(neck: str, flow: Flow) -> list[tuple[str, Value]]:
    """The maps of the flow with their names. Raises: RuleBroken where there are none"""
    if not flow.maps:
        raise RuleBroken(f"a neck `{neck}` reads feature maps, and there are none", hint="write `features: {}`")
    return list(flow.maps.items())


def resized(
    g: Scope,
    x: Value,
    like: Value,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    *,
    align_corners: bool = False,
    name: str,
) -> Value:
    """`x` at the size of `like`; as it is where it has that size."""
    height, width = like.type.shape[1:]
    same = x.type.shape[1:] == (height, width)
    return g.add_unless(same, Resize(height, width, mode, align_corners), x, name=name)
