"""A built engine on the GPU: loading it, giving it weights, and the time of each of its layers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from archdsl.backends.trt import api as api
from archdsl.backends.trt.library import Log, TensorRT, failure, gave_up, make_runtime, open_log
from archdsl.backends.trt.report import kind_of
from archdsl.errors import BackendError

WARM_UP = 5
"""Runs before those that count: the first ones load kernels."""


@dataclass
class Loaded:
    """An engine in the GPU's memory, and what must live as long as it does."""

    trt: TensorRT
    log: Log
    runtime: api.Runtime
    engine: api.ICudaEngine

    def inspected(self) -> str:
        """What the engine inspector says of all layers, as JSON."""
        inspector = self.engine.create_engine_inspector()
        return inspector.get_engine_information(self.trt.LayerInformationFormat.JSON) if inspector else ""


def load_plan(
    trt: TensorRT, plan: bytes, *, weights: bytes | Path | None = None, host_code: bool = False, log: Log | None = None
) -> Loaded:
    """Load a plan onto the GPU.

    weights: the ONNX model whose weights the engine shall have, for plans built with `refit` or `strip_weights`
    host_code: let the plan bring code for the CPU, as version-compatible plans do; only for plans you trust
    Errors: BackendError when there is no GPU, its memory runs out, or the plan is not one for this TensorRT and GPU
    """
    log = log or open_log(trt)
    runtime = make_runtime(trt, log)
    with guarded("loaded the plan", log):
        if host_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise gave_up("loaded the plan", log)
        if weights is not None:
            _refit(trt, engine, weights, log)
    return Loaded(trt, log, runtime, engine)


def _refit(trt: TensorRT, engine: api.ICudaEngine, model: bytes | Path, log: Log) -> None:
    refitter = trt.Refitter(engine, log.logger)
    parser = trt.OnnxParserRefitter(refitter, log.logger)
    taken = parser.refit_from_file(str(model)) if isinstance(model, Path) else parser.refit_from_bytes(model)
    if not taken:
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise failure("refit", f"the engine does not take the model's weights: {'; '.join(reasons) or log.told()}")
    if not refitter.refit_cuda_engine():
        raise gave_up("put weights into the engine", log)


@contextmanager
def guarded(what: str, log: Log) -> Iterator[None]:
    """Turn whatever TensorRT raises into a BackendError with what it said."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise gave_up(what, log, error) from error


# ---- the time of each layer


class Memory(Protocol):
    """The GPU's memory and the stream that work is queued on."""

    stream: int

    def allocate(self, shape: tuple[int, ...], dtype: str) -> int:
        """The address of a new buffer, kept until this object goes. `dtype`: TensorRT's name, such as `HALF`."""

    def wait(self) -> None:
        """Until everything queued is done."""


class CudaMemory:
    """GPU memory through torch. Floats are drawn from a normal distribution: zeros would need less power."""

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise failure("no-gpu", "torch sees no GPU, and the buffers come from torch", "install torch with CUDA")
        self._torch, self._stream, self._kept = torch, torch.cuda.Stream(), list[Any]()  # type: ignore[no-untyped-call]
        self.stream: int = self._stream.cuda_stream

    def allocate(self, shape: tuple[int, ...], dtype: str) -> int:
        torch = self._torch
        types = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT32": torch.int32}
        types |= {"INT64": torch.int64, "INT8": torch.int8, "UINT8": torch.uint8, "BOOL": torch.bool}
        if dtype not in types:
            raise failure("dtype", f"there is no buffer for numbers of the type {dtype}")
        make = torch.randn if types[dtype].is_floating_point else torch.zeros
        buffer = make(shape, dtype=types[dtype], device="cuda")
        torch.cuda.current_stream().synchronize()
        self._kept.append(buffer)
        return int(buffer.data_ptr())

    def wait(self) -> None:
        self._stream.synchronize()


@dataclass(frozen=True)
class LayerTime:
    """Milliseconds that a layer takes in one run, and its share of all of them."""

    name: str
    kind: str
    ms: float
    share: float


@dataclass(frozen=True)
class BatchProfile:
    """Where the time goes at one batch size. The times are taken layer by layer, which slows the network down: read
    the shares, and take the latency from a benchmark."""

    batch: int
    runs: int
    layers: tuple[LayerTime, ...]

    @property
    def ms(self) -> float:
        return math.fsum(layer.ms for layer in self.layers)

    def by_kind(self) -> dict[str, float]:
        """The share of each kind of layer, the largest first."""
        found: dict[str, float] = defaultdict(float)
        for layer in self.layers:
            found[layer.kind] += layer.share
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ms": self.ms, "by_kind": self.by_kind()}


@dataclass
class _Times:
    """What the profiler reports: milliseconds by layer, summed over runs."""

    ms: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, ms: float) -> None:
        self.ms[name] = self.ms.get(name, 0.0) + ms


def profile(
    loaded: Loaded,
    batches: Sequence[int],
    *,
    runs: int = 50,
    kinds: Callable[[str], str] | None = None,
    memory: Callable[[], Memory] = CudaMemory,
) -> tuple[BatchProfile, ...]:
    """The time of each layer at each batch size, the mean of `runs` runs on random inputs.

    kinds: the kind of a layer by its name (see `Report.kind`); by default what the name alone tells
    Errors: BackendError when the engine cannot run at one of the sizes, or the memory runs out
    """
    return tuple(_profile(loaded, batch, runs, kinds or (lambda name: kind_of(name, "")), memory) for batch in batches)


def _profile(
    loaded: Loaded, batch: int, runs: int, kinds: Callable[[str], str], memory: Callable[[], Memory]
) -> BatchProfile:
    what = f"ran the engine at batch {batch}"
    with guarded(what, loaded.log):
        buffers = memory()
        context = loaded.engine.create_execution_context()
        if context is None:
            raise gave_up(what, loaded.log)
        prepare(loaded, context, batch, buffers)
        times = _Times()
        report = {"report_layer_time": lambda _self, layer_name, ms: times.note(layer_name, ms)}
        context.profiler = type("Profiler", (loaded.trt.IProfiler,), report)()
        for run in range(WARM_UP + runs):
            if run == WARM_UP:
                times.ms.clear()
            if not context.execute_async_v3(buffers.stream):
                raise gave_up(what, loaded.log)
            buffers.wait()
    total = math.fsum(times.ms.values())
    if not total:
        raise failure("profile", "TensorRT reported no layer times", "profile an engine that archdsl built")
    layers = (LayerTime(name, kinds(name), ms / runs, ms / total) for name, ms in times.ms.items())
    return BatchProfile(batch, runs, tuple(sorted(layers, key=lambda layer: -layer.ms)))


def prepare(
    loaded: Loaded, context: api.IExecutionContext, batch: int, memory: Memory
) -> tuple[dict[str, int], dict[str, int]]:
    """Choose the optimisation profile for this batch size, set the inputs' shapes, and give every tensor a buffer.

    -> the addresses of the inputs' and of the outputs' buffers, by name
    Errors: BackendError when the engine was not built for this batch size, or TensorRT refuses
    """
    engine = loaded.engine
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == loaded.trt.TensorIOMode.INPUT]
    index = _profile_for(engine, inputs, batch)
    if not context.set_optimization_profile_async(index, memory.stream):
        raise gave_up(f"chose optimisation profile {index}", loaded.log)
    memory.wait()
    for name in inputs:
        if not context.set_input_shape(name, (batch, *_shape(engine.get_tensor_shape(name))[1:])):
            raise gave_up(f"took an input of batch {batch}", loaded.log)
    addresses: dict[str, int] = {}
    for name in names:
        address = memory.allocate(_shape(context.get_tensor_shape(name)), engine.get_tensor_dtype(name).name)
        if not context.set_tensor_address(name, address):
            raise gave_up(f"took a buffer for {name}", loaded.log)
        addresses[name] = address
    return {name: addresses[name] for name in inputs}, {name: addresses[name] for name in names if name not in inputs}


def _profile_for(engine: api.ICudaEngine, inputs: Sequence[str], batch: int) -> int:
    """The profile that covers `batch`, tuned for the nearest size; 0 for an engine of one size."""
    open_inputs = [name for name in inputs if engine.get_tensor_shape(name)[0] == -1]
    sizes = {engine.get_tensor_shape(name)[0] for name in inputs if name not in open_inputs}
    fitting = []
    for i in range(engine.num_optimization_profiles if sizes <= {batch} else 0):
        shapes = [[_shape(dims) for dims in engine.get_tensor_profile_shape(name, i)] for name in open_inputs]
        if all(low[0] <= batch <= high[0] for low, _, high in shapes):
            fitting.append((sum(abs(math.log(best[0] / batch)) for _, best, _ in shapes), i))
    if not fitting:
        message, hint = f"the engine was not built for batch {batch}", "build it with `batches` that include this one"
        raise failure("out-of-range", message, hint)
    return min(fitting)[1]


def _shape(dims: api.Dims) -> tuple[int, ...]:
    return tuple(dims[i] for i in range(len(dims)))
