"""The latency of a spec: its untrained network on the study's target, checked against PyTorch before it counts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from archdsl.errors import ArchError
from archdsl.latency import Artefact, Reference, Target, Timing, TimingCache, Worker, measure
from archdsl.latency.clock.energy import why_no_energy
from archdsl.latency.expected import CHECK_BATCH, reference_of
from archdsl.latency.failure import failed
from archdsl.latency.networks import artefact_of
from archdsl.latency.side_by_side import side_by_side
from archdsl.latency.stand_in import stand_in_weights
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec
from archdsl.study.crew.device_turn import device_turn

MOST_ATTEMPTS = 3
"""How often a time is taken when others use our cores meanwhile; the calmest counts."""


class MeasuredLatency:
    """Spec -> timing on one target.

    cache: timings of networks met before; budget_s: seconds of timed runs; energy: take that too, where it is told
    """

    def __init__(
        self,
        target: Target,
        *,
        cache: TimingCache | None = None,
        budget_s: float = 2.0,
        worker: Worker | None = None,
        energy: bool = False,
    ):
        self.target, self.cache, self.budget_s, self.worker, self.energy = target, cache, budget_s, worker, energy

    def fingerprint(self) -> str:
        """The target with its versions and device. Errors: MeasureError when the runtime is not installed"""
        return self.target.fingerprint()

    def why_no_energy(self) -> str | None:
        """Why nobody tells how much energy networks take on the target; None where it is told."""
        if self.target.is_analytic:
            return f"{self.target.runtime} runs nothing"
        return why_no_energy(self.target.device)

    def __call__(self, spec: Spec) -> Timing:
        """Errors: MeasureError with one of `latency.REASONS`; BackendError when an op cannot be exported."""
        budget_s, worker, energy = self.budget_s, self.worker, self.energy
        take = partial(measure, target=self.target, cache=self.cache, budget_s=budget_s, worker=worker, energy=energy)
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

    def in_turns(self, specs: Sequence[Spec]) -> list[Timing | ArchError]:
        """Networks timed anew, in turns with each other: for each its timing, or why it has none.

        Those that were disturbed meanwhile are timed again, up to `MOST_ATTEMPTS` times, and the last time counts:
        which one does is never a matter of how low it is. `cache` keeps the new timings.
        """
        with tempfile.TemporaryDirectory(prefix="archdsl-") as folder, device_turn(self.target.device):
            entrants = [_Entrant(self, spec) for spec in specs]
            found = self._side_by_side(entrants, Path(folder))
            for _ in range(MOST_ATTEMPTS - 1):
                disturbed = [i for i, one in enumerate(found) if isinstance(one, Timing) and one.contended]
                if not disturbed:
                    break
                for i, again in zip(
                    disturbed, self._side_by_side([entrants[i] for i in disturbed], Path(folder)), strict=True
                ):
                    found[i] = again if isinstance(again, Timing) else found[i]
            return found

    def _side_by_side(self, entrants: Sequence[_Entrant], folder: Path) -> list[Timing | ArchError]:
        how: dict[str, Any] = {"budget_s": self.budget_s, "cache": self.cache, "energy": self.energy}
        standings = side_by_side(entrants, self.target, folder, **how)
        return [one.timing or one.error or failed("protocol", "no time was taken") for one in standings]

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


class _Entrant:
    """A network that takes turns with others; it is made once."""

    def __init__(self, latency: MeasuredLatency, spec: Spec):
        self.name = spec.name
        self._latency, self._spec = latency, spec
        self._made: tuple[Artefact, Reference | None] | None = None

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        """Of the latency's own target. Errors: BackendError when an op cannot be exported"""
        del target
        self._made = self._made or self._latency._prepared(self._spec, folder)
        return self._made
