"""What a runtime must offer. Its file imports the library only inside functions: the table is read in every process."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from archdsl.latency.failure import failed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target


class Loaded(Protocol):
    """A network ready to run, in the worker."""

    known_ms: float | None
    """The latency of a runtime that computes it instead of being timed; None for all real ones."""

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        """Run once and return every output. x: [B, *input_shape], fp32."""
        ...

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        """What one timed run does: from inputs at hand to outputs at hand, device synchronised."""
        ...


class Runtime(Protocol):
    """One row of the table.

    name:       what users write
    kinds:      the artefacts it can run
    devices, precisions: what it knows; the first of each is the default
    analytic:   it computes latencies instead of taking them
    bounded_memory: a limit on the address space is sensible (drivers of GPUs reserve far more than they use)
    """

    name: str
    kinds: tuple[ArtefactKind, ...]
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    analytic: bool
    bounded_memory: bool

    def version(self) -> str:
        """The library's version, read without importing it. Raises MeasureError when it is not installed."""
        ...

    def device_name(self, device: str) -> str:
        """The device as its maker calls it."""
        ...

    def load(self, artefact: Artefact, target: Target) -> Loaded:
        """Make the artefact ready to run. Called in the worker, which turns whatever is raised into a failure."""
        ...


def library_version(runtime: str, packages: tuple[str, ...], bring: str) -> str:
    """The version of the first installed of `packages`. If none is: MeasureError, with the command that brings one."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    message = f"the runtime needs the package {packages[0]}, which is not installed"
    raise failed("runtime-missing", message, where=runtime, hint=bring)
