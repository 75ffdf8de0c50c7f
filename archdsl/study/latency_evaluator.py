"""Measures the latency of a spec: its untrained network on the target, whose outputs are checked against PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from archdsl.errors import ArchError
from archdsl.failures import failed
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.latency import Timing, TimingCache, Worker, measure
from archdsl.latency.sampling import BUDGET_S
from archdsl.latency.side_by_side import side_by_side
from archdsl.runtimes.artefact import Artefact, Reference
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.placeholder_weights import placeholder_weights
from archdsl.runtimes.reference import CHECK_BATCH, reference_of
from archdsl.runtimes.target import ResolvedTarget, Target, resolve
from archdsl.telemetry.device_lock import device_lock
from archdsl.telemetry.energy import why_no_energy

MOST_ATTEMPTS = 3
"""How often a network is measured when other processes use its cores; the least contended measurement counts."""


class LatencyEvaluator:
    """Measures networks on one target.

    Args:
        target: runtime, device, precision, batch and threads
        cache: timings of networks that were measured before
        budget_s: seconds of timed runs for each network
        worker: the process that measures; None for one of its own
        energy: measure the energy, too, where the device tells it
    """

    def __init__(
        self,
        target: Target,
        *,
        cache: TimingCache | None = None,
        budget_s: float = BUDGET_S,
        worker: Worker | None = None,
        energy: bool = False,
    ):
        self.target, self.cache, self.budget_s, self.worker, self.energy = target, cache, budget_s, worker, energy

    @cached_property
    def on(self) -> ResolvedTarget:
        """The target on this machine. Errors: MeasureError when the runtime is not installed"""
        return resolve(self.target)

    def why_no_energy(self) -> str | None:
        """Why the energy of networks cannot be measured on the target; None where it can."""
        if self.target.is_analytic:
            return f"{self.target.runtime} runs nothing"
        return why_no_energy(self.target.device)

    def __call__(self, spec: Spec) -> Timing:
        """Measure a network.

        Raises: MeasureError with one of `failures.REASONS`; BackendError when an op cannot be exported
        """
        budget_s, worker, energy = self.budget_s, self.worker, self.energy
        take = partial(measure, target=self.on, cache=self.cache, budget_s=budget_s, worker=worker, energy=energy)
        with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
            artefact, reference = self._prepared(spec, Path(folder))
            with nullcontext() if self.target.is_analytic else device_lock(self.target.device):
                timing = take(artefact, reference=reference)
                for _ in range(MOST_ATTEMPTS - 1):
                    if not timing.contended:
                        break
                    repeated = take(artefact, refresh=True)
                    timing = min(timing, repeated, key=lambda t: (t.contended, t.median_ms))
                return timing

    def measure_interleaved(self, specs: Sequence[Spec]) -> list[Timing | ArchError]:
        """Measure networks again, interleaved with each other.

        Networks that were disturbed are measured again, up to `MOST_ATTEMPTS` times, and the last measurement counts:
        it is never chosen for being low. The new timings are stored in the cache.

        Returns: for each network its timing, or the error
        """
        with tempfile.TemporaryDirectory(prefix="archdsl-") as folder, device_lock(self.target.device):
            subjects = [_Subject(self, spec) for spec in specs]
            found = self._side_by_side(subjects, Path(folder))
            for _ in range(MOST_ATTEMPTS - 1):
                disturbed = [i for i, one in enumerate(found) if isinstance(one, Timing) and one.contended]
                if not disturbed:
                    break
                for i, repeated in zip(
                    disturbed, self._side_by_side([subjects[i] for i in disturbed], Path(folder)), strict=True
                ):
                    found[i] = repeated if isinstance(repeated, Timing) else found[i]
            return found

    def _side_by_side(self, subjects: Sequence[_Subject], folder: Path) -> list[Timing | ArchError]:
        how: dict[str, Any] = {"budget_s": self.budget_s, "cache": self.cache, "energy": self.energy}
        results = side_by_side(subjects, self.on, folder, **how)
        return [one.timing or one.error or failed("protocol", "no time was taken") for one in results]

    def _prepared(self, spec: Spec, folder: Path) -> tuple[Artefact, Reference | None]:
        """The artefact to measure and, computed in parallel, its reference outputs; both with the same weights."""
        weights = placeholder_weights(lower(spec))
        if self.target.is_analytic:
            return artefact_of(spec, self.target, folder, weights), None
        images = min(CHECK_BATCH, self.target.batch)
        with ThreadPoolExecutor(1) as beside:
            reference = beside.submit(reference_of, spec, self.target.precision, images=images, weights=weights)
            artefact = artefact_of(spec, self.target, folder, weights)
            return artefact, reference.result()


class _Subject:
    """A network that is measured interleaved with others; its artefact is built once."""

    def __init__(self, evaluator: LatencyEvaluator, spec: Spec):
        self.name = spec.name
        self._evaluator, self._spec = evaluator, spec
        self._made: tuple[Artefact, Reference | None] | None = None

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        """The artefact for the evaluator's target. Raises: BackendError when an op cannot be exported"""
        del target
        self._made = self._made or self._evaluator._prepared(self._spec, folder)
        return self._made
