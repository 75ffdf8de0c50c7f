"""Attribute the times of a TensorRT engine's layers to the ONNX nodes that each computes.

TensorRT reports layer by layer only what is queued on a stream, so the runs are not recorded as a CUDA graph. What a
layer computes is what the engine's inspector says (`archdsl.backends.trt.report`). Not yet run on a GPU by us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from archdsl.backends.trt.library import gave_up
from archdsl.backends.trt.report import Layer, named
from archdsl.backends.trt.run import LoadedEngine, guarded, prepare
from archdsl.runtimes.protocol import OpProfile, OpTime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.adapters.tensorrt_buffers import Buffers

MOVES = ("reformat", "shuffle", "cast")
"""Kinds of layers that TensorRT inserts by itself, where they compute no node of ours."""


class EngineProfiler:
    """The engine in a context of its own, each layer of which is timed. buffers: for this context alone"""

    def __init__(self, loaded: LoadedEngine, layers: Sequence[Layer], x_BX: NDArray[Any], buffers: Buffers):
        self.loaded, self.layers, self.buffers = loaded, layers, buffers
        self._now: dict[str, float] = {}
        self._taken: list[dict[str, float]] = []
        with guarded("prepared the engine's profile", loaded.log):
            context = loaded.engine.create_execution_context()
            if context is None:
                raise gave_up("made an execution context", loaded.log)
            (address,) = prepare(loaded, context, len(x_BX), buffers)[0].values()
            buffers.put(address, x_BX)
            report = {"report_layer_time": lambda _self, layer_name, ms: self._note(layer_name, ms)}
            context.profiler = type("Profiler", (loaded.trt.IProfiler,), report)()
        self.context = context

    def run(self) -> object:
        self._now = {}
        if not self.context.execute_async_v3(self.buffers.stream):
            raise gave_up("ran the engine", self.loaded.log)
        self.buffers.wait()
        self._taken.append(self._now)
        return self._now

    def finish(self, counted: Sequence[int]) -> OpProfile:
        names = list(self._taken[-1])
        runs = [[self._taken[number].get(name, 0.0) for name in names] for number in counted]
        return OpProfile.of_runs([self._op(name) for name in names], runs, "TensorRT's layer times, median of runs")

    def _note(self, name: str, ms: float) -> None:
        self._now[name] = self._now.get(name, 0.0) + ms

    def _op(self, name: str) -> OpTime:
        layer = named(self.layers, name)
        if layer is None or not layer.origins:
            kind = layer.kind if layer else "unknown"
            return OpTime(name, kind, 0.0, inserted=kind in MOVES)
        first, *also = layer.origins
        return OpTime(first, layer.kind, 0.0, tuple(also))
