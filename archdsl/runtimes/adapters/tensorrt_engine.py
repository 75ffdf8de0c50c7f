"""A TensorRT engine, built in the worker from an .onnx file, whose types are its precision, run as a CUDA graph.
An engine that `Engine.save` wrote is run as it is.

A built engine is kept in the user's cache folder and used again where model, options, TensorRT, GPU and driver are the
same. How the CPU waits for the GPU is set by `archdsl.telemetry.gpu_wait`. What is timed begins and ends in
the GPU's memory; the copies from and to the host, which are not timed, go through pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.backends.trt.library import CLASSIC, Product, TensorRT, gave_up, load_tensorrt
from archdsl.backends.trt.options import Batches, EngineOptions
from archdsl.backends.trt.run import guarded, load_plan, prepare
from archdsl.errors import BackendError
from archdsl.failures import Reason, failed
from archdsl.files import cache_folder
from archdsl.runtimes.adapters.tensorrt_buffers import Buffers, CudaBuffers
from archdsl.runtimes.protocol import LoadedNetwork, Profiler, RunConfig, Runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact, ArtefactKind

WARM_UP = 2
"""Runs before the recording: TensorRT sets up its kernels in the first, which must not be recorded."""

REASON_OF: Mapping[str, Reason] = {
    "missing-library": "runtime-missing",
    "version": "runtime-missing",
    "no-gpu": "runtime-missing",
    "out-of-memory": "out-of-memory",
}
"""The backend's rules as reasons; all others are `exception`."""


class EngineRun:
    """An engine with its buffers in the GPU's memory: a run is from an input there to an output there."""

    known_ms: float | None = None

    def __init__(
        self,
        file: Path,
        batch: int,
        trt: TensorRT,
        buffers: Buffers,
        *,
        saved: bool = False,
        product: Product = CLASSIC,
    ):
        """file: the model, or with `saved` the engine."""
        from archdsl.backends.trt.engine import load_engine
        from archdsl.backends.trt.engine_cache import cached_engine

        only = (Batches.only(batch),)
        current = EngineOptions.ahead(("current",), {}, batches=only)
        options = current if product.ahead_of_time else EngineOptions.of({}, batches=only)
        self.buffers = buffers
        cache = cache_folder() / "tensorrt" / "engines"
        engine = load_engine(file) if saved else cached_engine(file, options, cache, trt=trt, product=product)
        self.layers = engine.report.layers if engine.report else ()
        self.loaded = load_plan(trt, engine.plan, host_code=saved and engine.options.version_compatible)
        with guarded("prepared the engine", self.loaded.log):
            self.context = self.loaded.engine.create_execution_context()
            if self.context is None:
                raise gave_up("made an execution context", self.loaded.log)
            inputs, outputs = prepare(self.loaded, self.context, batch, buffers)
        if len(inputs) != 1:
            message = f"one input is needed, the engine has {', '.join(inputs) or 'none'}"
            raise failed("wrong-artefact", message, where="tensorrt")
        (self.input,), self.results = inputs.values(), tuple(outputs.values())
        for _ in range(WARM_UP):
            self._queue()
            buffers.wait()
        self._run = buffers.recorded(self._queue)

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        self.timed(x_BX)()
        return [self.buffers.get(address) for address in self.results]

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        """All runs share one input, so the same engine must not be timed on two at once."""
        self.buffers.put(self.input, x_BX)
        return self._run

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        from archdsl.runtimes.adapters.tensorrt_profile import EngineProfiler

        return EngineProfiler(self.loaded, self.layers, x_BX, type(self.buffers)())

    def _queue(self) -> None:
        assert self.context is not None
        if not self.context.execute_async_v3(self.buffers.stream):
            raise gave_up("ran the engine", self.loaded.log)


class TensorRt(Runtime):
    """Engines are built for one batch size, with the timing cache that builds of this user share.

    loading_s: a large network's kernels are tried for minutes where no timing cache knows them yet
    """

    name = "tensorrt"
    product = CLASSIC
    kinds: tuple[ArtefactKind, ...] = ("onnx", "engine")
    precisions: Mapping[str, tuple[str, ...]] = {"cuda": ("fp32", "fp16", "bf16")}
    loading_s = 900.0
    reloads = False  # building an engine takes minutes

    def version(self) -> str:
        with as_measured():
            found = str(load_tensorrt(self.product).__version__)
        self.device_name("cuda")
        return found

    def device_name(self, device: str) -> str:
        """The GPU, if torch sees it: the buffers are torch's."""
        from archdsl.runtimes.adapters.torch_network import torch_device_name

        return torch_device_name(device, self.name)

    def load(self, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        assert artefact.path is not None
        with as_measured():
            saved = artefact.kind == "engine"
            trt = load_tensorrt(self.product)
            return EngineRun(artefact.path, config.batch, trt, CudaBuffers(), saved=saved, product=self.product)


@contextmanager
def as_measured() -> Iterator[None]:
    """Turn the backend's errors into failed measurements with a reason."""
    try:
        yield
    except BackendError as error:
        problem = error.problems[0]
        reason = REASON_OF.get(problem.rule, "exception")
        raise failed(reason, problem.message, where="tensorrt", hint=problem.hint) from error


RUNTIME = TensorRt()
