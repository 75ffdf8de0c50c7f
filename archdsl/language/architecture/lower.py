"""Spec -> graph: each part writes its nodes under its own path; what a part refuses gets the place in the spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from archdsl.errors import Problem, RuleBroken, ShapeError
from archdsl.ir.graph import Graph, Scope, Value
from archdsl.ir.order import Planes
from archdsl.ir.types import TensorType
from archdsl.language.architecture.from_data import no_classes
from archdsl.language.architecture.model import Features, NamedHead, Spec, Stage
from archdsl.language.text.limits import refuse_giant
from archdsl.parts.fields import FROM_DATA
from archdsl.parts.flow import Flow
from archdsl.parts.layers.features import with_features
from archdsl.parts.part import Part
from archdsl.parts.plugin_code import run_part

LOGITS = "logits"
"""The name of the output that is judged: the main value behind the head."""


def lower(spec: Spec, *, regular: bool = False) -> Graph:
    """The graph of a spec, as the papers draw it: images [B, C, H, W] in, `logits` out, and what only training reads.

    Made once for each spec.

    regular: keep the steps that do nothing in one block but something in another of its kind (a drop path of rate 0,
        the mask of a window that is not shifted): the same function with more nodes, for the source backend

    Raises: ShapeError with every part that does not fit, each at its place in the spec; SpecError when the network is
    larger than `archdsl.language.text.limits` allow
    """
    if spec._graph is not None and not regular:
        return spec._graph
    lowering = _Lowering(spec, regular)
    height, width = spec.input.size
    image = TensorType((spec.input.channels, height, width), order=Planes(height, width))
    flow = Flow(lowering.graph.input("image", image), size=(height, width))

    flow = lowering.part("stem", flow, spec.stem, spec.stem.lower)
    lowering.made["stem"] = flow.x
    for index, stage in enumerate(spec.stages):
        flow = lowering.stage(f"stages.{index}", flow, stage)
    if _wants_maps(spec):
        flow = lowering.features(flow, spec.features or Features())
    for index, neck in enumerate(spec.neck):
        flow = lowering.part(f"neck.{index}", flow, neck, neck.lower)
    lowering.heads(flow)

    if lowering.problems:
        raise ShapeError(sorted(lowering.problems, key=lambda p: (p.place.line, p.place.column)))
    cost = lowering.graph.cost()
    refuse_giant(spec, params=cost.params, macs=cost.macs, activation_bytes=cost.bytes_written)
    if not regular:
        spec._graph = lowering.graph
    return lowering.graph


def _wants_maps(spec: Spec) -> bool:
    """Whether anything behind the stages reads more than the last value."""
    tapped = any((named.tap or "").startswith("features.") for named in spec.heads)
    return spec.features is not None or bool(spec.neck) or tapped or spec.head.reads_maps


class _Lowering:
    """The graph so far, and what was wrong on the way. After a broken part, lowering goes on with what it was given.

    made: what the stem, each stage and each block gave, by path
    """

    def __init__(self, spec: Spec, regular: bool):
        self.spec, self.graph, self.regular = spec, Graph(spec.name), regular
        self.problems: list[Problem] = []
        self.made: dict[str, Value] = {}

    def stage(self, path: str, flow: Flow, stage: Stage) -> Flow:
        before = flow.x.type.channels
        if stage.downsample is not None:
            dim = stage.dim or 2 * before
            downsample = stage.downsample
            flow = self.part(f"{path}.downsample", flow, downsample, lambda g, f: downsample.lower(g, f, dim))
        elif stage.dim not in (None, before):
            self._problem(
                f"{path}.dim",
                RuleBroken(
                    f"a stage without a downsample keeps its width {before}, but got dim {stage.dim}",
                    hint=f"add a downsample, or set dim to {before}",
                ),
            )
        for index, block in enumerate(stage.blocks):
            flow = self.part(f"{path}.blocks.{index}", flow, block, block.lower)
            self.made[f"{path}.blocks.{index}"] = flow.x
        self.made[path] = flow.x
        return replace(flow, stages=(*flow.stages, flow.x))

    def features(self, flow: Flow, features: Features) -> Flow:
        """The flow with the maps that the neck and the heads see."""
        taps = features.taps or tuple(f"stages.{index}" for index in range(len(self.spec.stages)))
        try:
            taken = {tap: self.made[tap] for tap in taps}
            g = Scope(self.graph, "features", self.regular)
            return with_features(g, flow, taken, norm=features.norm, eps=features.norm_eps)
        except RuleBroken as broken:
            self._problem(f"features.{broken.field}" if broken.field else "features", broken)
            return flow

    def heads(self, flow: Flow) -> None:
        """The outputs: the main head's, under the path `head`, then those of the others."""
        spec, found = self.spec, dict[str, Value]()
        for named in spec.heads or (NamedHead(name=LOGITS, head=spec.head),):
            path = "head" if named.name == LOGITS else f"heads.{named.name}"
            head = named.head
            lower = no_classes if getattr(head, "classes", None) == FROM_DATA else head.lower
            after = self.part(path, self._tapped(flow, named.tap), head, lower)
            if named.name in (*found, *after.outputs) or after.outputs.keys() & found.keys():
                message = f"two heads give an output `{named.name}`"
                self._problem(path, RuleBroken(message, rule="duplicate-key", hint="call one of them otherwise"))
                continue
            given = after.results or {named.name: after.x}
            for name, value in given.items():
                self.graph.output(name, value, training=named.train)
            for name, value in after.outputs.items():
                self.graph.output(name, value, training=True)
            found |= {**given, **after.outputs}

    def _tapped(self, flow: Flow, tap: str | None) -> Flow:
        """The flow whose main value is what a head reads."""
        if tap is None:
            return flow
        if tap in self.made:
            return flow.to(self.made[tap])
        maps = list(flow.features.values())
        return flow.to(maps[int(tap.rpartition(".")[2])]) if maps else flow

    def part(self, path: str, flow: Flow, part: Part, lower: Callable[[Scope, Flow], Flow]) -> Flow:
        what = f"`lower` of the {part.kind} `{part.type_name}`"
        try:
            after: object = run_part(type(part), what, lambda: lower(Scope(self.graph, path, self.regular), flow))
            if not isinstance(after, Flow):
                message = f"{what} must return a Flow, but returned {type(after).__name__}"
                raise RuleBroken(message, rule="plugin", hint="end it with `return flow.to(x)`")
            if LOGITS in after.outputs:
                raise RuleBroken(
                    f"{what} gives an output `{LOGITS}`, which is the name of its main value", rule="plugin"
                )
            return after
        except RuleBroken as broken:
            self._problem(f"{path}.{broken.field}" if broken.field else path, broken)
            return flow

    def _problem(self, path: str, broken: RuleBroken) -> None:
        """Note a broken rule; the same one for several blocks of a stage is one problem."""
        problem = Problem(self.spec.locate(path), broken.rule, broken.message, broken.hint, path)
        if all((p.place, p.message) != (problem.place, problem.message) for p in self.problems):
            self.problems.append(problem)
