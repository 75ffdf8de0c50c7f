"""Heads: from the last features to what the network is for."""

from __future__ import annotations

from typing import Literal

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Activation, Dropout
from archdsl.ops.tokens import MeanPool, TakeToken
from archdsl.parts.fields import ActivationName, Classes, Dim, Eps, NormAxis, NormName, Rate
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import norm
from archdsl.parts.part import Head, register


@register("classifier")
class Classifier(Head):
    """Norm, one vector for the image, one linear layer: logits.

    pool: `avg` is the mean of all tokens, `cls` the class token
    hidden: the width of a linear layer with an activation (`hidden_act`) before the last one; null for none
    dropout: before the last layer
    norm_after_pool: normalise the vector (ConvNeXt) instead of every token (Swin, ViT)
    """

    classes: Classes = 1000
    pool: Literal["avg", "cls"] = "avg"
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-5
    norm_after_pool: bool = False
    hidden: Dim | None = None
    hidden_act: ActivationName = "relu"
    dropout: Rate = 0.0

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        x = self._normed(g, self._pooled(g, x)) if self.norm_after_pool else self._pooled(g, self._normed(g, x))
        if self.hidden is not None:
            x = g.add(Linear(x.type.channels, self.hidden), x, name="hidden")
            x = g.add(Activation(self.hidden_act), x, name="hidden_act")
        if self.dropout:
            x = g.add(Dropout(self.dropout), x, name="dropout")
        return flow.to(g.add(Linear(x.type.channels, self.classes), x, name="fc"))

    def _normed(self, g: Scope, x: Value) -> Value:
        return norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm")

    def _pooled(self, g: Scope, x: Value) -> Value:
        if self.pool == "avg":
            return g.add(MeanPool(), x, name="pool")
        if x.type.order is not None:
            raise RuleBroken(
                f"pool `cls` needs a class token, but got {x.type}",
                field="pool",
                hint="use `pool: avg`, or `cls: true` in the stem",
                rule="wrong-value",
            )
        return g.add(TakeToken(0), x, name="pool")
