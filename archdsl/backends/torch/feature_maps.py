"""A module that gives feature maps as a list, and says what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from archdsl.ir.graph import Graph


@dataclass(frozen=True)
class FeatureInfo:
    """What the maps are, finest first. timm's networks of features answer the same questions.

    names:    the paths of the parts that make them
    widths:   how many channels each has
    strides:  how many pixels of the image one place of each stands for
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]

    def channels(self) -> list[int]:
        """How many channels each map has."""
        return list(self.widths)

    def reduction(self) -> list[int]:
        """How many pixels of the image one place of each map stands for, down and across."""
        return list(self.strides)

    def module_name(self) -> list[str]:
        """The paths of the parts that make the maps."""
        return list(self.names)


class FeatureModule(fx.GraphModule):
    """Images [B, C, H, W] -> a list of maps, each [B, channels, H / stride, W / stride]."""

    @property
    def feature_info(self) -> FeatureInfo:
        """What the maps are."""
        found = self.meta["feature_info"]
        assert isinstance(found, FeatureInfo)
        return found


def as_features(module: fx.GraphModule, graph: Graph) -> FeatureModule:
    """The module of a graph whose outputs are maps, giving them as a list."""
    end = module.graph.output_node()
    given = end.args[0]
    end.args = (list(given.values()) if isinstance(given, dict) else [given],)
    made = FeatureModule(module, module.graph, class_name=graph.name)
    made.meta["feature_info"] = info_of(graph)
    return made


def info_of(graph: Graph) -> FeatureInfo:
    """What the outputs of a graph are."""
    (image,) = graph.inputs
    types = [node.type for node in graph.outputs.values()]
    strides = [_stride(image.type.shape[1:], type.shape[1:]) for type in types]
    return FeatureInfo(tuple(graph.outputs), tuple(type.channels for type in types), tuple(strides))


def _stride(image: Sequence[int], map_: Sequence[int]) -> int:
    return max(1, round(max(image) / max(map_)))
