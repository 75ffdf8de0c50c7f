"""The latency of a spec: its untrained network on the study's target, checked against PyTorch before it counts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from archdsl import compiler
from archdsl.backends.precision import precision_named
from archdsl.latency import Reference, Target, Timing, TimingCache, measure
from archdsl.latency.networks import artefact_of
from archdsl.latency.stand_in import stand_in_weights
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec

CHECK_BATCH = 2
MOST_ATTEMPTS = 3
"""How often a time is taken when others use our cores meanwhile; the calmest counts."""


class MeasuredLatency:
    """Spec -> timing on one target. cache: timings of networks met before; budget_s: seconds of timed runs"""

    def __init__(self, target: Target, *, cache: TimingCache | None = None, budget_s: float = 2.0):
        self.target, self.cache, self.budget_s = target, cache, budget_s

    def fingerprint(self) -> str:
        """The target with its versions and device. Errors: MeasureError when the runtime is not installed"""
        return self.target.fingerprint()

    def __call__(self, spec: Spec) -> Timing:
        """Errors: MeasureError with one of `latency.REASONS`; BackendError when an op cannot be exported."""
        with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
            artefact = artefact_of(spec, self.target, Path(folder))
            reference = None if self.target.is_analytic else reference_of(spec, self.target.precision)
            timing = measure(artefact, self.target, cache=self.cache, reference=reference, budget_s=self.budget_s)
            for _ in range(MOST_ATTEMPTS - 1):
                if not timing.contended:
                    break
                again = measure(artefact, self.target, cache=self.cache, refresh=True, budget_s=self.budget_s)
                timing = min(timing, again, key=lambda t: (t.contended, t.median_ms))
            return timing


def reference_of(spec: Spec, precision: str = "fp32") -> Reference:
    """What fp32 PyTorch answers to random images, with the weights that the exported network has."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no pool of ours may spin while the worker takes its time
    try:
        images = torch.randn(
            CHECK_BATCH, spec.input.channels, *spec.input.size, generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            logits = compiler.build(spec, stand_in_weights(lower(spec))).eval()(images)
    finally:
        torch.set_num_threads(threads)
    return Reference(images.numpy(), logits.numpy(), precision_named(precision).tolerance)
