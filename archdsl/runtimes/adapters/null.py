"""A runtime that runs nothing: its latency is a formula of the network's counts, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archdsl.runtimes.protocol import RunConfig, Runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact, ArtefactKind

OVERHEAD_MS = 0.05
MACS_PER_MS = 20e6
BYTES_PER_MS = 10e6


def analytic_ms(macs: int, bytes_moved: int, batch: int, threads: int) -> float:
    """0.05 ms + batch * (macs / (20 GMAC/s * threads) + bytes / (10 GB/s)), the made-up machine of the tests."""
    return OVERHEAD_MS + batch * (macs / (MACS_PER_MS * threads) + bytes_moved / BYTES_PER_MS)


@dataclass(frozen=True)
class Computed:
    """A network that is only its counts. Its outputs are zeros. shapes: of its outputs, without the batch axis"""

    known_ms: float | None
    shapes: tuple[tuple[int, ...], ...]

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        import numpy as np

        return [np.zeros((len(x_BX), *shape), dtype=np.float32) for shape in self.shapes]

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        return lambda: None


class Null(Runtime):
    """The adapter of the formula `analytic_ms`."""

    name = "null"
    kinds: tuple[ArtefactKind, ...] = ("null", "onnx", "spec")
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32", "fp16", "bf16")}
    analytic = True

    def version(self) -> str:
        return "1"

    def device_name(self, device: str) -> str:
        return "no device"

    def load(self, artefact: Artefact, config: RunConfig) -> Computed:
        ms = analytic_ms(artefact.macs, artefact.bytes_moved, config.batch, config.threads)
        return Computed(ms, tuple(output.shape for output in artefact.outputs) or ((1,),))


RUNTIME = Null()
