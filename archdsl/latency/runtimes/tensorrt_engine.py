"""A TensorRT engine, built in the worker from an .onnx file that says its precision, run as a CUDA graph.

A built engine is kept in the user's cache folder and taken up again where model, options, TensorRT, GPU and driver are
the same. How the CPU waits for the GPU is said by `archdsl.latency.clock.gpu_wait`. What is timed begins and ends in
the GPU's memory; the copies from and to the host, which are not timed, go through pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from archdsl.backends.trt.library import TensorRT, gave_up, load_tensorrt
from archdsl.backends.trt.options import Batches, EngineOptions
from archdsl.backends.trt.run import CudaMemory, Memory, guarded, load_plan, prepare
from archdsl.errors import BackendError
from archdsl.latency.failure import Reason, failed
from archdsl.latency.runtimes.protocol import Loaded, Profiler, Runtime
from archdsl.writing import cache_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target

WARM_UP = 2
"""Runs before the recording: TensorRT sets up its kernels in the first, which must not be recorded."""

REASON_OF: Mapping[str, Reason] = {
    "missing-library": "runtime-missing",
    "version": "runtime-missing",
    "no-gpu": "runtime-missing",
    "out-of-memory": "out-of-memory",
}
"""The backend's rules as reasons; all others are `exception`."""


class Buffers(Memory, Protocol):
    """The GPU's memory, what is read and written there, and recorded work."""

    def put(self, address: int, x: NDArray[Any]) -> None:
        """Copy `x` into the buffer at `address`."""

    def get(self, address: int) -> NDArray[Any]:
        """A copy of the buffer at `address`."""

    def recorded(self, queue: Callable[[], None]) -> Callable[[], object]:
        """What does the work that `queue` queues on the stream, all of it at once, and waits until it is done."""


class CudaBuffers(CudaMemory):
    """Buffers of torch, work recorded as a CUDA graph, the wait by a CUDA event: as the device's context is told to."""

    def put(self, address: int, x: NDArray[Any]) -> None:
        self._at(address).copy_(self._torch.tensor(x).pin_memory(), non_blocking=True)
        self._torch.cuda.current_stream().synchronize()

    def get(self, address: int) -> NDArray[Any]:
        buffer = self._at(address)
        host = self._torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=True).copy_(buffer, non_blocking=True)
        self._torch.cuda.current_stream().synchronize()
        found: NDArray[Any] = host.numpy().copy()
        return found

    def recorded(self, queue: Callable[[], None]) -> Callable[[], object]:
        graph, done = self._torch.cuda.CUDAGraph(), self._torch.cuda.Event()
        with self._torch.cuda.graph(graph, stream=self._stream):
            queue()

        def run() -> None:
            graph.replay()
            done.record()
            done.synchronize()

        return run

    def _at(self, address: int) -> Any:
        return next(buffer for buffer in self._kept if buffer.data_ptr() == address)


class EngineRun:
    """An engine with its buffers in the GPU's memory: a run is from an input there to an output there."""

    known_ms: float | None = None

    def __init__(self, onnx: Path, batch: int, trt: TensorRT, buffers: Buffers):
        from archdsl.backends.trt.kept import kept_engine

        options = EngineOptions.of({}, batches=(Batches.only(batch),))
        self.buffers = buffers
        engine = kept_engine(onnx, options, cache_folder() / "tensorrt" / "engines", trt=trt)
        self.layers = engine.report.layers if engine.report else ()
        self.loaded = load_plan(trt, engine.plan)
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
        from archdsl.latency.runtimes.tensorrt_profile import EngineProfiler

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
    kinds: tuple[ArtefactKind, ...] = ("onnx",)
    precisions: Mapping[str, tuple[str, ...]] = {"cuda": ("fp32", "fp16", "bf16")}
    loading_s = 900.0
    reloads = False  # building an engine takes minutes

    def version(self) -> str:
        with as_measured():
            found = str(load_tensorrt().__version__)
        self.device_name("cuda")
        return found

    def device_name(self, device: str) -> str:
        """The GPU, if torch sees it: the buffers are torch's."""
        from archdsl.latency.runtimes.torch_network import torch_device_name

        return torch_device_name(device, self.name)

    def load(self, artefact: Artefact, target: Target) -> Loaded:
        assert artefact.path is not None
        with as_measured():
            return EngineRun(artefact.path, target.batch, load_tensorrt(), CudaBuffers())


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
