"""Features: the maps between the parts of a backbone, as planes, for what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Raster
from archdsl.ops.maps import TakeMap
from archdsl.parts.fields import NormName
from archdsl.parts.flow import Flow, as_planes
from archdsl.parts.layers.convolutions import norm_of_map
from archdsl.parts.part import Head, register


def with_features(g: Scope, flow: Flow, taps: Mapping[str, Value], *, norm: NormName, eps: float) -> Flow:
    """The flow with these values as its features, each as planes behind a norm of its own; the last is the main value.

    Raises: RuleBroken where a value has no map
    """
    found: dict[str, Value] = {}
    for index, (tap, x) in enumerate(taps.items()):
        here = g.at(str(index))
        x = _as_map(here, x, flow.places, tap)
        found[tap] = as_planes(here, norm_of_map(here, x, norm, eps=eps, name="norm"))
    return replace(flow, x=list(found.values())[-1], features=found, maps=found)


def _as_map(g: Scope, x: Value, places: Raster | None, tap: str) -> Value:
    """The places of a map, without the tokens before them. Raises: RuleBroken where there is no map"""
    if x.type.order is not None:
        return x
    first = x.type.tokens - places.num_slots if places is not None else -1
    if places is None or first < 0:
        hint = "take maps from parts whose tokens have places, and use a stem `patch` before a class token"
        raise RuleBroken(f"features are maps, but after `{tap}` there is {x.type}", hint=hint, field="taps")
    return g.add(TakeMap(first, places.height, places.width), x, name="places")


@register("features")
class FeaturesHead(Head):
    """No head: what the network gives are its feature maps, finest first, each by the path of the part that made it.

    Source: what detectors and segmenters are put upon, as in arXiv 1612.03144
    """

    reads_maps = True

    def lower(self, g: Scope, flow: Flow) -> Flow:
        del g  # the maps are there
        return replace(flow, results=flow.maps)
