"""The head of networks that learn from a teacher: one classifier learns from labels, the other from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Average
from archdsl.ops.tokens import MeanPool, TakeToken
from archdsl.parts.fields import Classes, Eps, NormAxis, NormName
from archdsl.parts.flow import Flow, as_tokens
from archdsl.parts.layers.sublayers import norm
from archdsl.parts.part import Head, register


@register("distilled")
class DistilledClassifier(Head):
    """Two classifiers, of which one learns from the labels and the other from a teacher: logits are their mean.

    In training each has an output of its own: `cls`, which learns from the labels, and `dist`, from a teacher.

    pool: of `tokens`, normed, one classifier reads the class token and the other the distillation token (DeiT); of
        `avg`, the mean of all tokens, each reads a norm of its own (LeViT)

    Source: DeiT, arXiv 2012.12877, section 4; LeViT, arXiv 2104.01136, section 4.2
    """

    classes: Classes = 1000
    pool: Literal["tokens", "avg"] = "tokens"
    norm: NormName = "layer"
    norm_axis: NormAxis = "channel"
    norm_eps: Eps = 1e-5

    def lower(self, g: Scope, flow: Flow) -> Flow:
        vectors = self._of_mean(g, flow) if self.pool == "avg" else self._of_tokens(g, flow)
        answers = {
            name: g.add(Linear(vector.type.channels, self.classes), vector, name=layer)
            for (name, vector), layer in zip(vectors.items(), ("fc", "fc_dist"), strict=True)
        }
        return replace(flow, x=g.add(Average(), *answers.values(), name="mean"), outputs={**flow.outputs, **answers})

    def _of_tokens(self, g: Scope, flow: Flow) -> dict[str, Value]:
        if missing := [name for name in ("cls", "dist") if name not in flow.tokens]:
            raise RuleBroken(
                f"a distilled head reads the tokens `cls` and `dist`, but there is no `{missing[0]}`",
                hint=f"write `{missing[0]}: true` in a stem `patch`, or `pool: avg`",
                rule="wrong-value",
            )
        x = self._normed(g, flow.x, "norm")
        return {name: g.add(TakeToken(flow.tokens.index(name)), x, name=f"{name}_token") for name in ("cls", "dist")}

    def _of_mean(self, g: Scope, flow: Flow) -> dict[str, Value]:
        vector = g.add(MeanPool(), as_tokens(g, flow.x), name="pool")
        return {"cls": self._normed(g, vector, "norm"), "dist": self._normed(g, vector, "norm_dist")}

    def _normed(self, g: Scope, x: Value, name: str) -> Value:
        return norm(g, x, self.norm, axis=self.norm_axis, eps=self.norm_eps, name=name)
