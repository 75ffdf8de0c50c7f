"""The latency of a spec: its untrained network on the study's target, checked against PyTorch before it counts."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from archdsl.latency import Artefact, Reference, Target, Timing, TimingCache, Worker, measure
from archdsl.latency.expected import CHECK_BATCH, reference_of
from archdsl.latency.networks import artefact_of
from archdsl.latency.stand_in import stand_in_weights
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec
from archdsl.study.crew.device_turn import device_turn

MOST_ATTEMPTS = 3
"""How often a time is taken when others use our cores meanwhile; the calmest counts."""


class MeasuredLatency:
    """Spec -> timing on one target. cache: timings of networks met before; budget_s: seconds of timed runs"""

    def __init__(
        self,
        target: Target,
        *,
        cache: TimingCache | None = None,
        budget_s: float = 2.0,
        worker: Worker | None = None,
    ):
        self.target, self.cache, self.budget_s, self.worker = target, cache, budget_s, worker

    def fingerprint(self) -> str:
        """The target with its versions and device. Errors: MeasureError when the runtime is not installed"""
        return self.target.fingerprint()

    def __call__(self, spec: Spec) -> Timing:
        """Errors: MeasureError with one of `latency.REASONS`; BackendError when an op cannot be exported."""
        take = partial(measure, target=self.target, cache=self.cache, budget_s=self.budget_s, worker=self.worker)
        with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
            artefact, reference = self._prepared(spec, Path(folder))
            with nullcontext() if self.target.is_analytic else device_turn(self.target.device):
                timing = take(artefact, reference=reference)
                for _ in range(MOST_ATTEMPTS - 1):
                    if not timing.contended:
                        break
                    again = take(artefact, refresh=True)
                    timing = min(timing, again, key=lambda t: (t.contended, t.median_ms))
                return timing

    def _prepared(self, spec: Spec, folder: Path) -> tuple[Artefact, Reference | None]:
        """What is timed, and meanwhile what it must answer; both with the same weights."""
        weights = stand_in_weights(lower(spec))
        if self.target.is_analytic:
            return artefact_of(spec, self.target, folder, weights), None
        images = min(CHECK_BATCH, self.target.batch)
        with ThreadPoolExecutor(1) as beside:
            reference = beside.submit(reference_of, spec, self.target.precision, images=images, weights=weights)
            artefact = artefact_of(spec, self.target, folder, weights)
            return artefact, reference.result()
