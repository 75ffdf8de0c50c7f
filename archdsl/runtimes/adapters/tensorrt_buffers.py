"""The GPU's memory as a TensorRT engine uses it: shared by the runtime and its profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from archdsl.backends.trt.run import CudaMemory, Memory

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Buffers(Memory, Protocol):
    """The GPU's memory, what is read and written there, and recorded work."""

    def put(self, address: int, x: NDArray[Any]) -> None:
        """Copy `x` into the buffer at `address`."""

    def get(self, address: int) -> NDArray[Any]:
        """A copy of the buffer at `address`."""

    def recorded(self, queue: Callable[[], None]) -> Callable[[], object]:
        """What does the work that `queue` queues on the stream, all of it at once, and waits until it is done."""


class CudaBuffers(CudaMemory):
    """Buffers of torch, work recorded as a CUDA graph, the wait by a CUDA event, as the device's context is set."""

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
