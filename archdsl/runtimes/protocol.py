"""What the adapter of a runtime offers. It imports its library only inside functions: all processes read the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from archdsl.failures import failed
from archdsl.json_fields import JsonFields
from archdsl.versions import installed_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact, ArtefactKind


@dataclass(frozen=True)
class RunConfig:
    """How a runtime is to run a network: what an adapter needs to know of a target.

    device: `cpu` or `cuda`; precision: a name in `PRECISIONS`; batch: images at once; threads: of the runtime
    """

    device: str = "cpu"
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1


class LoadedNetwork(Protocol):
    """A network ready to run, in the worker."""

    @property
    def known_ms(self) -> float | None:
        """The latency of a runtime that computes it instead of being timed; None for all real ones."""
        ...

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        """Run once. x_BX: [B, *input_shape], fp32. -> every output [B, *shape], in the artefact's order"""
        ...

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        """What one timed run calls: from inputs on the device to outputs there, with the device synchronised."""
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
class OpProfile(JsonFields):
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


class Profiler(Protocol):
    """A second copy of a loaded network, its runtime's own profiler on. Runs of several are interleaved."""

    def run(self) -> object:
        """One run, outputs at hand."""
        ...

    def finish(self, counted: Sequence[int]) -> OpProfile:
        """What the ops took in the runs of these numbers, from 0, one or more. Called once, after the last run."""
        ...


@runtime_checkable
class Profilable(Protocol):
    """A loaded network whose runtime tells what each op takes. The method is optional in `LoadedNetwork`."""

    def profiler(self, x_BX: NDArray[Any]) -> Profiler: ...


class Runtime(Protocol):
    """The adapter of a runtime: one row of the table, one file under `adapters/`.

    name:       what users write
    kinds:      the artefacts it can run
    precisions: for each device it knows, the precisions it knows there; the first device is the default
    analytic:   it computes latencies instead of measuring them
    typed:      the precision is in the artefact's graph; if not, the artefact is fp32 and `load` asks for the precision
    loading_s:  how long loading and checking one artefact may take
    modules:    what `load` imports; imported before, so that only what a network takes counts as its memory
    reloads:    a network can be loaded again in seconds, and is for each session of a measurement. Where loading builds
                or compiles for minutes, one load has to do
    ahead_of_time: it also compiles for GPUs that are named and need not be here (`Target.gpu`); those engines are read,
                not run
    ahead_precisions: those that only such engines have, since archdsl measures nothing in them

    Example:
        >>> from archdsl.runtimes.artefact import Artefact
        >>> from archdsl.runtimes.registry import runtime
        >>> adapter = runtime("null")
        >>> adapter.name, adapter.kinds, adapter.version()
        ('null', ('null', 'onnx', 'spec'), '1')
        >>> adapter.load(Artefact("null", "a network", (3, 32, 32), macs=20_000_000), RunConfig(batch=2)).known_ms
        2.05
    """

    name: str
    kinds: tuple[ArtefactKind, ...]
    precisions: Mapping[str, tuple[str, ...]]
    analytic: bool = False
    typed: bool = True
    loading_s: float = 120.0
    modules: tuple[str, ...] = ()
    reloads: bool = True
    ahead_of_time: bool = False
    ahead_precisions: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices it knows, the default first."""
        return tuple(self.precisions)

    def version(self) -> str:
        """The library's version, read without importing it.

        Raises: MeasureError (`runtime-missing`) when it is not installed
        """
        ...

    def device_name(self, device: str) -> str:
        """The device as its maker calls it.

        Args:   device: one of `devices`
        Raises: MeasureError (`runtime-missing`) when this machine has none that the runtime can use
        """
        ...

    def load(self, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        """Make an artefact ready to run. It is called in the worker, which reports whatever is raised as a failure.

        Args: artefact: of one of `kinds`; config: device and precision are ones it knows
        """
        ...

    def load_again(self, loaded: LoadedNetwork, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        """The same network elsewhere in memory. loaded: what `load` made of `artefact`; it is not used afterwards"""
        return self.load(artefact, config)


def library_version(runtime: str, packages: tuple[str, ...], bring: str) -> str:
    """The version of the first installed of `packages`. If none is: MeasureError, with the command that brings one."""
    found = installed_version(*packages)
    if found is not None:
        return found
    message = f"the runtime needs the package {packages[0]}, which is not installed"
    raise failed("runtime-missing", message, where=runtime, hint=bring)
