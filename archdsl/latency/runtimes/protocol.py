"""What a runtime must offer. Its file imports the library only inside functions: the table is read in every process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from archdsl.latency.failure import failed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target


class Loaded(Protocol):
    """A network ready to run, in the worker."""

    @property
    def known_ms(self) -> float | None:
        """The latency of a runtime that computes it instead of being timed; None for all real ones."""
        ...

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        """Run once and return every output. x: [B, *input_shape], fp32."""
        ...

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        """What one timed run does: from inputs at hand to outputs at hand, device synchronised."""
        ...


@dataclass(frozen=True)
class OpTime:
    """One op of the network as a runtime runs it.

    name:     the node of the artefact it is or is named for: an ONNX node's name, which begins with our node's path, or
              that path itself; what it does not begin with any of our paths counts as unattributed
    op_type:  what the runtime calls it (`FusedMatMul`, `Softmax`, `aten::addmm`)
    ms:       of one run
    also:     names of the nodes that the runtime fused into it
    inserted: the runtime put it there by itself, to change a memory layout or a number format
    """

    name: str
    op_type: str
    ms: float
    also: tuple[str, ...] = ()
    inserted: bool = False


@dataclass(frozen=True)
class OpProfile:
    """The ops of one run, in the order in which they ran.

    run_ms: the median, over the runs, of the sum of their ops. On a noisy machine it is more than the sum of `ops`,
            each of which is a median of its own
    runs:   how many were looked at; method: how, in words
    """

    ops: tuple[OpTime, ...]
    run_ms: float
    runs: int
    method: str

    @classmethod
    def of_runs(cls, ops: Sequence[OpTime], runs_ms: Sequence[Sequence[float]], method: str) -> Self:
        """The medians of `runs_ms`: for each run the ms of each of `ops`. Ops that take no time are left out."""
        taken = [replace(op, ms=median(ms)) for op, ms in zip(ops, zip(*runs_ms, strict=True), strict=True)]
        return cls(tuple(op for op in taken if op.ms > 0), median(map(sum, runs_ms)), len(runs_ms), method)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        ops = tuple(OpTime(**{**op, "also": tuple(op["also"])}) for op in data["ops"])
        return cls(ops, float(data["run_ms"]), int(data["runs"]), str(data["method"]))


class Profiler(Protocol):
    """A second copy of a loaded network, its runtime's own profiler on. Runs of several take turns."""

    def run(self) -> object:
        """One run, outputs at hand."""
        ...

    def finish(self, counted: Sequence[int]) -> OpProfile:
        """What the ops took in the runs of these numbers, from 0, one or more. Called once, after the last run."""
        ...


@runtime_checkable
class Profilable(Protocol):
    """A loaded network whose runtime tells what each op takes. The method is optional in `Loaded`."""

    def profiler(self, x_BX: NDArray[Any]) -> Profiler: ...


class Runtime(Protocol):
    """One row of the table.

    name:       what users write
    kinds:      the artefacts it can run
    precisions: for each device it knows, the precisions it knows there; the first device is the default
    analytic:   it computes latencies instead of taking them
    typed:      the precision is in the artefact's graph; if not, the artefact is fp32 and `load` asks for the precision
    loading_s:  how long loading and checking one artefact may take
    modules:    what `load` imports; imported before, so that only what a network takes counts as its memory
    reloads:    a network can be loaded again in seconds, and is for each sitting of a measurement. Where loading builds
                or compiles for minutes, one load has to do
    """

    name: str
    kinds: tuple[ArtefactKind, ...]
    precisions: Mapping[str, tuple[str, ...]]
    analytic: bool = False
    typed: bool = True
    loading_s: float = 120.0
    modules: tuple[str, ...] = ()
    reloads: bool = True

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices it knows, the default first."""
        return tuple(self.precisions)

    def version(self) -> str:
        """The library's version, read without importing it. Raises MeasureError when it is not installed."""
        ...

    def device_name(self, device: str) -> str:
        """The device as its maker calls it. Raises MeasureError when this machine has none that the runtime can use."""
        ...

    def load(self, artefact: Artefact, target: Target) -> Loaded:
        """Make the artefact ready to run. Called in the worker, which turns whatever is raised into a failure."""
        ...

    def load_again(self, loaded: Loaded, artefact: Artefact, target: Target) -> Loaded:
        """The same elsewhere in memory. `loaded`, which `load` made of `artefact`, is not used after it."""
        return self.load(artefact, target)


def library_version(runtime: str, packages: tuple[str, ...], bring: str) -> str:
    """The version of the first installed of `packages`. If none is: MeasureError, with the command that brings one."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    message = f"the runtime needs the package {packages[0]}, which is not installed"
    raise failed("runtime-missing", message, where=runtime, hint=bring)
