"""The self-test's instruments on a real target: the code that `bench` and `search` themselves use."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

import numpy as np

from archdsl.compiler import cost
from archdsl.errors import MeasureError
from archdsl.events import Listener, ignore
from archdsl.failures import failed, reason_of
from archdsl.language import Space, Spec, load
from archdsl.language.architecture.lower import lower
from archdsl.language.space.objectives import DurationBounds
from archdsl.latency import measure
from archdsl.latency.predictor.predictions import beside
from archdsl.runs.self_test_checks import Check, TimedRun, self_test
from archdsl.runtimes.artefact import Artefact, Reference
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.placeholder_weights import placeholder_weights
from archdsl.runtimes.reference import reference_of
from archdsl.runtimes.target import Target, resolve
from archdsl.study.candidate import Assessor, Infeasible
from archdsl.study.latency_evaluator import LatencyEvaluator
from archdsl.study.objectives import OBJECTIVES
from archdsl.telemetry.cpu import allowed_cores

NETWORKS: dict[str, tuple[str, Mapping[str, object]]] = {
    "small": ("vit_ti_16", {"input.size": 112}),
    "big": ("vit_s_16", {"input.size": 176}),
    "half": ("vit_ti_16", {"input.size": 112, "stages.0.depth": 6}),
}
"""Shipped networks of one kind, cut so that they take milliseconds: many times what measuring itself takes. The last
is made of the blocks of the first, so that it can be predicted from it."""


def run_self_test(target: Target, on_event: Listener = ignore) -> list[Check]:
    """The self-test on `target`. Errors: MeasureError when the networks cannot be timed there at all, or when the
    runtime computes its latencies, so that there is nothing to test"""
    if target.is_analytic:
        message = f"{target.runtime} computes latencies from counts; there is nothing to test"
        raise failed("wrong-artefact", message, where=target.runtime, hint="choose another with --on")
    resolve(target)
    with TemporaryDirectory(prefix="archdsl-self-test-") as folder:
        return self_test(Machine(target, Path(folder)), on_event)


@dataclass(frozen=True)
class Machine:
    """The instruments. folder: where exported networks go"""

    target: Target
    folder: Path

    def macs(self, network: str) -> int:
        return cost(spec_of(network)).macs

    def num_cores(self) -> int:
        return len(allowed_cores() or ()) or os.cpu_count() or 1

    def take(self, network: str, *, batch: int = 1, budget_s: float = 1.0) -> TimedRun:
        target = replace(self.target, batch=batch)
        artefact, reference = self._artefact(network, target), self._references[network]
        measure(artefact, target, reference=reference, budget_s=0.1)  # the worker and its library are there afterwards
        began = time.monotonic()
        timing = measure(artefact, target, budget_s=budget_s)
        return TimedRun(timing, time.monotonic() - began)

    def keeps(self, network: str, most_ms: float) -> bool:
        latency = LatencyEvaluator(self.target, budget_s=0.5)
        bounds = {"latency": DurationBounds(max=most_ms)}
        space = cast(Space, SimpleNamespace(spec=lambda assignment: spec_of(network)))  # all that is called of it
        assessor = Assessor(space, [OBJECTIVES["latency"]], constraints=bounds, latency=latency)
        candidate = assessor.candidate({})
        try:
            assessor.check_counts(candidate)
            assessor.assess(candidate, lambda step: None, lambda key, value: None)
        except Infeasible:
            return False
        return True

    def predicted_and_measured(self) -> tuple[float, float] | None:
        specs = [spec_of("small"), spec_of("half")]
        try:
            found = beside(specs, self.target, segment_s=0.3, network_s=0.5)[1].result
        except MeasureError as error:
            if reason_of(error) == "wrong-artefact":
                return None
            raise
        if isinstance(found, MeasureError):
            raise found
        return found.median_ms, self.take("half").timing.median_ms

    def refuses_corrupted(self, network: str) -> bool:
        """The network and what it must answer differ in one weight; which of the two has the wrong one is the same."""
        artefact = self._artefact(network, self.target)
        reference = replace(corrupted(network), tolerance=self._references[network].tolerance)
        try:
            measure(artefact, self.target, reference=reference, budget_s=0.1)
        except MeasureError as error:
            if reason_of(error) == "numeric-gate":
                return True
            raise
        return False

    @cached_property
    def _references(self) -> dict[str, Reference]:
        return {name: reference_of(spec_of(name), self.target.precision) for name in NETWORKS}

    def _artefact(self, network: str, target: Target) -> Artefact:
        return artefact_of(spec_of(network), target, self.folder)


@cache
def spec_of(network: str) -> Spec:
    """The spec of one of `NETWORKS`."""
    name, changes = NETWORKS[network]
    return load(name, set=dict(changes))


def corrupted(network: str) -> Reference:
    """What PyTorch answers when one number of the last matrix is wrong by as much as its largest."""
    spec = spec_of(network)
    weights = placeholder_weights(lower(spec))
    name = [name for name, tensor in weights.items() if tensor.ndim == 2][-1]
    wrong = np.array(weights[name])
    wrong[0, 0] += 100 * float(np.abs(wrong).max())
    return reference_of(spec, weights={**weights, name: wrong})
