"""The members of TensorRT that we use, typed. Each Protocol has the name of the class that it describes, in Python or
(`IRuntime`) in C++.

TensorRT ships no types. These are what the backend is checked against, and `tests/test_trt_surface.py` (opt-in) checks
them in turn against the published bindings of 10.16 and 11.4: every member named here, its arguments and its result.
Only what both have is here, and TensorRT for RTX has all of it, so one source serves the three. What the last has alone
(`ComputeCapability`) is in `build.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast


class Member(Protocol):
    """One member of an enum."""

    @property
    def name(self) -> str: ...
    def __int__(self) -> int: ...


class NetworkDefinitionCreationFlag(Protocol):
    """Flags of `Builder.create_network`."""

    STRONGLY_TYPED: Member  # a choice on 10.x; ignored on 11.x, where there is nothing else


class BuilderFlag(Protocol):
    """Flags of `IBuilderConfig.set_flag`."""

    REFIT: Member
    REFIT_IDENTICAL: Member
    STRIP_PLAN: Member
    TF32: Member
    VERSION_COMPATIBLE: Member


class MemoryPoolType(Protocol):
    """Pools of `IBuilderConfig.set_memory_pool_limit`."""

    WORKSPACE: Member


class ProfilingVerbosity(Protocol):
    """How much of its layers an engine can report."""

    DETAILED: Member


class HardwareCompatibilityLevel(Protocol):
    """Which other GPUs a plan runs on."""

    AMPERE_PLUS: Member


class LayerInformationFormat(Protocol):
    """Formats of `EngineInspector`."""

    JSON: Member


class TensorIOMode(Protocol):
    """Whether a tensor of an engine is an input or an output."""

    INPUT: Member


class ILogger(Protocol):
    """To be subclassed: TensorRT calls `log`, from any of its threads."""

    def log(self, severity: Member, msg: str) -> None: ...


class IProfiler(Protocol):
    """To be subclassed: TensorRT calls `report_layer_time` once for each layer of each run."""

    def report_layer_time(self, layer_name: str, ms: float) -> None: ...


class IHostMemory(Protocol):
    """Memory of TensorRT: a buffer, see `copied`."""

    @property
    def nbytes(self) -> int: ...


class Dims(Protocol):
    """A shape; -1 is an axis whose size is open."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> int: ...


class ITensor(Protocol):
    """A tensor of a network. The shape of an input can be set."""

    shape: Dims

    @property
    def name(self) -> str: ...


class INetworkDefinition(Protocol):
    """The network that a builder compiles."""

    @property
    def num_inputs(self) -> int: ...
    def get_input(self, index: int) -> ITensor: ...


class ITimingCache(Protocol):
    """Timings of kernels that builds share."""

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def serialize(self) -> IHostMemory | None: ...


class IOptimizationProfile(Protocol):
    """Ranges of input shapes that kernels are tuned for."""

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None: ...


class IBuilderConfig(Protocol):
    """The options of one build."""

    builder_optimization_level: int
    profiling_verbosity: Member
    hardware_compatibility_level: Member

    def set_flag(self, flag: Member) -> None: ...
    def clear_flag(self, flag: Member) -> None: ...
    def set_memory_pool_limit(self, pool: Member, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...


class Builder(Protocol):
    """Compiles networks to plans."""

    def create_network(self, flags: int) -> INetworkDefinition | None: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...


class ParserError(Protocol):
    """One error of an ONNX parser."""

    def code(self) -> Member: ...
    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    """Reads an ONNX model into a network."""

    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int) -> ParserError: ...
    def parse(self, model: bytes) -> bool: ...
    def parse_from_file(self, model: str) -> bool: ...


class Refitter(Protocol):
    """Replaces the weights of an engine."""

    def refit_cuda_engine(self) -> bool: ...


class OnnxParserRefitter(Protocol):
    """Replaces the weights of an engine by those of an ONNX model."""

    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int) -> ParserError: ...
    def refit_from_bytes(self, model: bytes) -> bool: ...
    def refit_from_file(self, model: str) -> bool: ...


class EngineInspector(Protocol):
    """Reports the layers of an engine."""

    def get_engine_information(self, format: Member) -> str: ...


class IExecutionContext(Protocol):
    """One execution of an engine: its shapes, buffers and profiler."""

    profiler: IProfiler

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    """A plan loaded onto the GPU."""

    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Member: ...
    def get_tensor_dtype(self, name: str) -> Member: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Iterable[Dims]: ...
    def create_engine_inspector(self) -> EngineInspector | None: ...
    def create_execution_context(self) -> IExecutionContext | None: ...


class IRuntime(Protocol):
    """`tensorrt.Runtime`, by the name that it has in C++: loads plans onto the GPU."""

    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...


class Constructors(Protocol):
    """What is made by calling a class of TensorRT; each raises TypeError when TensorRT cannot make it (no GPU)."""

    def Builder(self, logger: ILogger) -> Builder: ...
    def OnnxParser(self, network: INetworkDefinition, logger: ILogger) -> OnnxParser: ...
    def OnnxParserRefitter(self, refitter: Refitter, logger: ILogger) -> OnnxParserRefitter: ...
    def Refitter(self, engine: ICudaEngine, logger: ILogger) -> Refitter: ...
    def Runtime(self, logger: ILogger) -> IRuntime: ...


def copied(memory: IHostMemory) -> bytes:
    """A copy of TensorRT's memory, which stays ours when TensorRT's goes."""
    return bytes(cast(Any, memory))
