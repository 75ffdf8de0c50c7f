"""Heads that answer for every pixel: a classifier at each place, and its maps brought to the size of the image."""

from __future__ import annotations

from typing import Literal

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope
from archdsl.ops.pointwise import Dropout
from archdsl.ops.pooling import Resize
from archdsl.parts.families.deeplab_weights import FCN_NAMES
from archdsl.parts.fields import Classes, Dim, Rate
from archdsl.parts.flow import Flow, as_planes
from archdsl.parts.layers.convolutions import conv_norm_relu, convolution
from archdsl.parts.part import Head, register


@register("segmenter")
class Segmenter(Head):
    """A score for each class at each place: maybe a 3x3 convolution with batch norm and relu, then one of 1x1.

    hidden: the width of the 3x3 convolution; null for none
    dropout: before the last convolution
    resize: `input` brings the maps to the size of the image (bilinear); `none` leaves them as they are
    align_corners: whether resizing keeps the centres of the corners where they are

    Source: FCN, arXiv 1411.4038
    """

    classes: Classes = 21
    hidden: Dim | None = None
    dropout: Rate = 0.0
    resize: Literal["input", "none"] = "input"
    align_corners: bool = False

    def lower(self, g: Scope, flow: Flow) -> Flow:
        if flow.x.type.order is None:
            hint = "use a stem without a class token"
            raise RuleBroken(f"an answer for every pixel needs a map, but got {flow.x.type}", hint=hint)
        x = as_planes(g, flow.x)
        if hidden := self.hidden_width(x.type.channels):
            x = conv_norm_relu(g, x, hidden, 3, name="hidden")
        if self.dropout:
            x = g.add(Dropout(self.dropout), x, name="dropout")
        x = convolution(g, x, self.classes, 1, bias=True, name="fc")
        if self.resize == "input":
            x = g.add(Resize(*flow.size, align_corners=self.align_corners), x, name="resize")
        return flow.to(x)

    def hidden_width(self, dim: int) -> int:
        """The width of the 3x3 convolution on a map `dim` wide; 0 for none."""
        del dim
        return self.hidden or 0


@register("fcn")
class FcnHead(Segmenter):
    """A segmenter whose 3x3 convolution is always there: by default a quarter as wide as the map that comes.

    Source: FCN, arXiv 1411.4038, as torchvision builds it; upon an earlier stage, for training: arXiv 1612.01105
    """

    weight_names = FCN_NAMES

    dropout: Rate = 0.1

    def hidden_width(self, dim: int) -> int:
        return self.hidden or max(1, dim // 4)
