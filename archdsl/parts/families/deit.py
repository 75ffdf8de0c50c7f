"""The head of a distilled DeiT: one classifier learns from labels, the other from a teacher, and both answer."""

from __future__ import annotations

from dataclasses import replace

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Average
from archdsl.ops.tokens import TakeToken
from archdsl.parts.fields import Classes, Eps, NormAxis, NormName
from archdsl.parts.flow import Flow
from archdsl.parts.layers.sublayers import norm
from archdsl.parts.part import Head, register


@register("distilled")
class DistilledClassifier(Head):
    """Norm, then a linear layer on the class token and another on the distillation token: logits are their mean.

    In training each has an output of its own: `cls`, which learns from the labels, and `dist`, from a teacher.

    Source: DeiT, arXiv 2012.12877, section 4
    """

    classes: Classes = 1000
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-5

    def lower(self, g: Scope, flow: Flow) -> Flow:
        if missing := [name for name in ("cls", "dist") if name not in flow.tokens]:
            raise RuleBroken(
                f"a distilled head reads the tokens `cls` and `dist`, but there is no `{missing[0]}`",
                hint=f"write `{missing[0]}: true` in a stem `patch`",
                rule="wrong-value",
            )
        x = norm(g, flow.x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name="norm")
        answers = {}
        for token, layer in (("cls", "fc"), ("dist", "fc_dist")):
            vector = g.add(TakeToken(flow.tokens.index(token)), x, name=f"{token}_token")
            answers[token] = g.add(Linear(vector.type.channels, self.classes), vector, name=layer)
        return replace(flow, x=g.add(Average(), *answers.values(), name="mean"), outputs={**flow.outputs, **answers})
