"""Loading an engine onto the GPU, replacing its weights, and giving one execution its shapes and buffers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from archdsl.backends.trt import api as api
from archdsl.backends.trt.library import Log, TensorRT, failure, gave_up, make_runtime, open_log
from archdsl.errors import BackendError


@dataclass
class LoadedEngine:
    """An engine in the GPU's memory, and the objects that must live as long as it does."""

    trt: TensorRT
    log: Log
    runtime: api.IRuntime
    engine: api.ICudaEngine

    def inspected(self) -> str:
        """The engine inspector's description of all layers, as JSON."""
        inspector = self.engine.create_engine_inspector()
        return inspector.get_engine_information(self.trt.LayerInformationFormat.JSON) if inspector else ""


def load_plan(
    trt: TensorRT, plan: bytes, *, weights: bytes | Path | None = None, host_code: bool = False, log: Log | None = None
) -> LoadedEngine:
    """Load a plan onto the GPU.

    Args:
        plan: what a builder serialized
        weights: the ONNX model whose weights the engine gets, for plans built with `refit` or `strip_weights`
        host_code: allow code for the CPU in the plan (version-compatible plans have it); only for trusted plans
        log: receives TensorRT's messages

    Raises: BackendError when there is no GPU, its memory runs out, or the plan is not for this TensorRT and GPU
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
    return LoadedEngine(trt, log, runtime, engine)


def _refit(trt: TensorRT, engine: api.ICudaEngine, model: bytes | Path, log: Log) -> None:
    refitter = trt.Refitter(engine, log.logger)
    parser = trt.OnnxParserRefitter(refitter, log.logger)
    taken = parser.refit_from_file(str(model)) if isinstance(model, Path) else parser.refit_from_bytes(model)
    if not taken:
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise failure("refit", f"the engine does not take the model's weights: {'; '.join(reasons) or log.reason()}")
    if not refitter.refit_cuda_engine():
        raise gave_up("put weights into the engine", log)


@contextmanager
def guarded(what: str, log: Log) -> Iterator[None]:
    """Turn any exception of TensorRT into a BackendError with TensorRT's messages. what: the step, for the message."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise gave_up(what, log, error) from error


class Memory(Protocol):
    """The GPU's memory and the stream that work is queued on."""

    stream: int

    def allocate(self, shape: tuple[int, ...], dtype: str) -> int:
        """The address of a new buffer, which lives as long as this object. dtype: TensorRT's name, such as `HALF`."""

    def wait(self) -> None:
        """Block until all queued work is done."""


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


def prepare(
    loaded: LoadedEngine, context: api.IExecutionContext, batch: int, memory: Memory
) -> tuple[dict[str, int], dict[str, int]]:
    """Select the optimisation profile for this batch size, set the inputs' shapes, and give every tensor a buffer.

    Returns: the addresses of the input buffers and of the output buffers, each by tensor name
    Raises: BackendError when the engine was not built for this batch size, or TensorRT refuses
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
