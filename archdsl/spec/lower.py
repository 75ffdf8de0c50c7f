"""Spec -> graph: each part writes its nodes under its own path; what a part refuses gets the place in the spec."""

from __future__ import annotations

from collections.abc import Callable

from archdsl.blocks.flow import Flow
from archdsl.errors import Problem, RuleBroken, ShapeError
from archdsl.ir.graph import Graph, Scope
from archdsl.ir.order import Planes
from archdsl.ir.types import TensorType
from archdsl.spec.limits import refuse_giant
from archdsl.spec.model import Spec, Stage


def lower(spec: Spec) -> Graph:
    """The graph of a spec, as the papers draw it: images [B, C, H, W] in, `logits` out. Made once for each spec.

    Errors: ShapeError with every part that does not fit, each at its place in the spec; SpecError when the network is
    larger than `archdsl.spec.limits` allow
    """
    if spec._graph is not None:
        return spec._graph
    lowering = _Lowering(spec)
    height, width = spec.input.size
    image = TensorType((spec.input.channels, height, width), order=Planes(height, width))
    flow = Flow(lowering.graph.input("image", image))

    flow = lowering.part("stem", flow, spec.stem.lower)
    for index, stage in enumerate(spec.stages):
        flow = lowering.stage(f"stages.{index}", flow, stage)
    flow = lowering.part("head", flow, spec.head.lower)
    lowering.graph.output("logits", flow.x)

    if lowering.problems:
        raise ShapeError(sorted(lowering.problems, key=lambda p: (p.place.line, p.place.column)))
    cost = lowering.graph.cost()
    refuse_giant(spec, params=cost.params, macs=cost.macs, activation_bytes=cost.bytes_written)
    spec._graph = lowering.graph
    return lowering.graph


class _Lowering:
    """The graph so far, and what was wrong on the way. After a broken part, lowering goes on with what it was given."""

    def __init__(self, spec: Spec):
        self.spec, self.graph = spec, Graph(spec.name)
        self.problems: list[Problem] = []

    def stage(self, path: str, flow: Flow, stage: Stage) -> Flow:
        before = flow.x.type.channels
        if stage.downsample is not None:
            dim = stage.dim or 2 * before
            downsample = stage.downsample
            flow = self.part(f"{path}.downsample", flow, lambda g, f: downsample.lower(g, f, dim))
        elif stage.dim not in (None, before):
            self._problem(
                f"{path}.dim",
                RuleBroken(
                    f"a stage without a downsample keeps its width {before}, but got dim {stage.dim}",
                    hint=f"add a downsample, or set dim to {before}",
                ),
            )
        for index, block in enumerate(stage.blocks):
            flow = self.part(f"{path}.blocks.{index}", flow, block.lower)
        return Flow(flow.x, flow.side, (*flow.stages, flow.x))

    def part(self, path: str, flow: Flow, lower: Callable[[Scope, Flow], Flow]) -> Flow:
        try:
            return lower(Scope(self.graph, path), flow)
        except RuleBroken as broken:
            self._problem(f"{path}.{broken.field}" if broken.field else path, broken)
            return flow

    def _problem(self, path: str, broken: RuleBroken) -> None:
        """Note a broken rule; the same one for several blocks of a stage is one problem."""
        problem = Problem(self.spec.locate(path), broken.rule, broken.message, broken.hint, path)
        if all((p.place, p.message) != (problem.place, problem.message) for p in self.problems):
            self.problems.append(problem)
