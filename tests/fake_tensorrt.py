"""A stand-in for TensorRT: the members we use, in the order in which the documentation allows them, on no GPU.

`FakeTensorRT("10.16.1.11")` and `FakeTensorRT("11.4.0.106")` are modules as `load_tensorrt` returns. Public members are
only those of the real classes (`test_trt_surface.py` compares them); what steers the fake begins with an underscore.
An engine's layers are the nodes of the ONNX model, so reports and profiles can be tested end to end.
"""

from __future__ import annotations

import enum
import hashlib
import json
import weakref
from collections.abc import Sequence

import onnx


class _Enum(enum.Enum):
    def __int__(self) -> int:
        return self.value


NetworkDefinitionCreationFlag = _Enum("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
BuilderFlag = _Enum("BuilderFlag", "REFIT REFIT_IDENTICAL STRIP_PLAN TF32 VERSION_COMPATIBLE")
MemoryPoolType = _Enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = _Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED")
HardwareCompatibilityLevel = _Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
LayerInformationFormat = _Enum("LayerInformationFormat", "JSON")
TensorIOMode = _Enum("TensorIOMode", "INPUT OUTPUT")
DataType = _Enum("DataType", "FLOAT HALF")
ErrorCode = _Enum("ErrorCode", "INVALID_NODE UNSUPPORTED_NODE MODEL_DESERIALIZE_FAILED REFIT_FAILED")
Severity = _Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

ENUMS = (
    NetworkDefinitionCreationFlag,
    BuilderFlag,
    MemoryPoolType,
    ProfilingVerbosity,
    HardwareCompatibilityLevel,
    LayerInformationFormat,
    TensorIOMode,
    DataType,
    ErrorCode,
)


class ILogger:
    def log(self, severity, msg):
        raise NotImplementedError


class IProfiler:
    def report_layer_time(self, layer_name, ms):
        raise NotImplementedError


class IHostMemory(bytes):
    @property
    def nbytes(self):
        return len(self)


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...]):
        self._name, self._shape = name, shape

    name = property(lambda self: self._name)
    shape = property(lambda self: self._shape)


class INetworkDefinition:
    def __init__(self, strongly_typed: bool):
        self._strongly_typed, self._parser, self._model = strongly_typed, None, None
        self._inputs: list[ITensor] = []

    num_inputs = property(lambda self: len(self._inputs))

    def get_input(self, index):
        return self._inputs[index]


class ParserError:
    def __init__(self, code: str, desc: str, node_name: str = "", node_operator: str = ""):
        self._code, self._desc, self._node_name, self._node_operator = code, desc, node_name, node_operator

    def code(self):
        return ErrorCode[self._code]

    def desc(self):
        return self._desc

    def node_name(self):
        return self._node_name

    def node_operator(self):
        return self._node_operator


class OnnxParser:
    """Its weights go when it goes, as TensorRT's do."""

    def __init__(self, trt: FakeTensorRT, network: INetworkDefinition):
        self._trt, self._network, self._errors = trt, network, []
        network._parser = weakref.ref(self)

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index):
        return self._errors[index]

    def parse(self, model):
        assert not self._network._model, "parsed twice into one network"
        try:
            return self._take(onnx.load_model_from_string(bytes(model)))
        except Exception as error:
            self._errors.append(ParserError("MODEL_DESERIALIZE_FAILED", str(error)))
            return False

    def parse_from_file(self, model):
        assert isinstance(model, str)
        return self._take(onnx.load(model))

    def _take(self, model: onnx.ModelProto) -> bool:
        self._errors += self._trt._parser_errors
        for value in model.graph.input:
            sizes = tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)
            self._network._inputs.append(ITensor(value.name, sizes))
        self._network._model = model
        return not self._errors


class ITimingCache:
    """A table of timings for one version and device, with a check sum."""

    def __init__(self, trt: FakeTensorRT, entries: dict[str, float], version: str, device: str):
        self._trt, self._entries, self._version, self._device = trt, entries, version, device

    def serialize(self):
        body = json.dumps([self._version, self._device, self._entries], sort_keys=True).encode()
        return IHostMemory(b"fake timings " + hashlib.sha256(body).digest() + body)

    def combine(self, input_cache, ignore_mismatch):
        if not self._trt._matches(input_cache, ignore_mismatch):
            return False
        self._entries = {**input_cache._entries, **self._entries}
        return True


class IOptimizationProfile:
    def __init__(self):
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input, min, opt, max):
        shapes = [tuple(min), tuple(opt), tuple(max)]
        if len({len(shape) for shape in shapes}) != 1 or any(not a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            raise ValueError("inconsistent shapes")
        self._shapes[input] = shapes


class IBuilderConfig:
    def __init__(self, trt: FakeTensorRT):
        self._trt, self._flags, self._profiles, self._cache = trt, {BuilderFlag.TF32}, [], None
        self._pools: dict[str, int] = {}
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE

    def set_flag(self, flag):
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool.name] = pool_size

    def add_optimization_profile(self, profile):
        if not profile._shapes:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache):
        data = bytes(serialized_timing_cache)
        if not data:
            return ITimingCache(self._trt, {}, self._trt.__version__, self._trt._device)
        head, check, body = data[:13], data[13:45], data[45:]
        if head != b"fake timings " or hashlib.sha256(body).digest() != check:
            self._trt._say("ERROR", "the timing cache is corrupted")
            return None
        version, device, entries = json.loads(body)
        return ITimingCache(self._trt, entries, version, device)

    def set_timing_cache(self, cache, ignore_mismatch):
        if not self._trt._matches(cache, ignore_mismatch):
            return False
        self._cache = weakref.ref(cache)  # "must not be destroyed until after the engine is built"
        return True


class Builder:
    def __init__(self, trt: FakeTensorRT):
        self._trt = trt

    def create_network(self, flags=0):
        asked = bool(flags & 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        return INetworkDefinition(asked or self._trt.__version__.startswith("11."))

    def create_builder_config(self):
        return IBuilderConfig(self._trt)

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        trt = self._trt
        for severity, text in trt._build_messages:
            trt._say(severity, text)
        if trt._build_raises:
            raise trt._build_raises
        why = self._refusal(network, config)
        if why or trt._build_fails:
            if why:
                trt._say("ERROR", why)
            return None
        nodes = [[node.op_type, node.name] for node in network._model.graph.node]
        cache = config._cache and config._cache()
        timed = 0
        if cache and config.builder_optimization_level > 0:
            for op, name in nodes:
                timed += name not in cache._entries
                cache._entries.setdefault(name, len(op))
        trt._while_building(config)
        return IHostMemory(
            json.dumps(
                {
                    "version": trt.__version__,
                    "strongly_typed": network._strongly_typed,
                    "flags": sorted(flag.name for flag in config._flags),
                    "pools": config._pools,
                    "level": config.builder_optimization_level,
                    "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
                    "hardware": config.hardware_compatibility_level.name,
                    "profiles": [profile._shapes for profile in config._profiles],
                    "inputs": {tensor.name: tensor.shape for tensor in network._inputs},
                    "outputs": [value.name for value in network._model.graph.output],
                    "timed": timed,
                    "nodes": nodes,
                }
            ).encode()
        )

    def _refusal(self, network: INetworkDefinition, config: IBuilderConfig) -> str | None:
        if network._model is None:
            return "Network must have at least one output"
        if network._parser() is None:
            return "the weights of the network are gone"
        if config._cache and config._cache() is None:
            return "the timing cache was destroyed before the build"
        dynamic = [tensor for tensor in network._inputs if -1 in tensor.shape]
        if dynamic and not config._profiles:
            return "Network has dynamic or shape inputs, but no optimization profile has been defined."
        for profile in config._profiles:
            for tensor in dynamic:
                if tensor.name not in profile._shapes:
                    return f"no shape for {tensor.name}"
        return None


class EngineInspector:
    def __init__(self, text: str):
        self._text = text

    def get_engine_information(self, format):
        return self._text


class ICudaEngine:
    def __init__(self, trt: FakeTensorRT, plan: dict):
        self._trt, self._plan = trt, plan
        self._has_weights = "STRIP_PLAN" not in plan["flags"]

    num_io_tensors = property(lambda self: len(self._plan["inputs"]) + len(self._plan["outputs"]))
    num_optimization_profiles = property(lambda self: max(1, len(self._plan["profiles"])))

    def get_tensor_name(self, index):
        return [*self._plan["inputs"], *self._plan["outputs"]][index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._plan["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return DataType.FLOAT

    def get_tensor_shape(self, name):
        return tuple(self._plan["inputs"].get(name, (-1, 5)))

    def get_tensor_profile_shape(self, name, profile_index):
        return [tuple(shape) for shape in self._plan["profiles"][profile_index][name]]

    def create_engine_inspector(self):
        return EngineInspector(self._trt._inspected(self._plan))

    def create_execution_context(self):
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine):
        self._engine, self._profile, self._shapes, self._addresses = engine, 0, {}, {}
        self.profiler = None

    def set_optimization_profile_async(self, profile_index, stream_handle):
        self._profile, self._shapes, self._addresses = profile_index, {}, {}
        return profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name, shape):
        profiles = self._engine._plan["profiles"]
        low, _, high = profiles[self._profile][name] if profiles else [self._engine.get_tensor_shape(name)] * 3
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        if name in self._shapes:
            return self._shapes[name]
        batch = {shape[0] for shape in self._shapes.values()}
        return (batch.pop() if len(batch) == 1 else -1, *self._engine.get_tensor_shape(name)[1:])

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return memory > 0

    def execute_async_v3(self, stream_handle):
        engine = self._engine
        names = {*engine._plan["inputs"], *engine._plan["outputs"]}
        if not engine._has_weights or set(self._addresses) != names or set(self._shapes) != set(engine._plan["inputs"]):
            engine._trt._say("ERROR", "enqueueV3: tensors, shapes or weights are missing")
            return False
        batch = next(iter(self._shapes.values()))[0]
        for entry in json.loads(engine._trt._inspected(engine._plan))["Layers"] if self.profiler else ():
            self.profiler.report_layer_time(entry["Name"], 0.01 * batch)
        return True


class Runtime:
    def __init__(self, trt: FakeTensorRT):
        self._trt, self.engine_host_code_allowed = trt, False

    def deserialize_cuda_engine(self, serialized_engine):
        try:
            plan = json.loads(bytes(serialized_engine))
        except ValueError:
            self._trt._say("ERROR", "deserialization failed: magic tag does not match")
            return None
        if plan["version"] != self._trt.__version__ and "VERSION_COMPATIBLE" not in plan["flags"]:
            self._trt._say("ERROR", "the engine plan file is not compatible with this version of TensorRT")
            return None
        if "VERSION_COMPATIBLE" in plan["flags"] and not self.engine_host_code_allowed:
            self._trt._say("ERROR", "the engine contains host code, which is not allowed")
            return None
        return ICudaEngine(self._trt, plan)


class Refitter:
    def __init__(self, engine: ICudaEngine):
        self._engine, self._taken = engine, False

    def refit_cuda_engine(self):
        self._engine._has_weights = self._taken
        return self._taken


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter):
        self._refitter, self._errors = refitter, []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index):
        return self._errors[index]

    def refit_from_bytes(self, model):
        nodes = [[node.op_type, node.name] for node in onnx.load_model_from_string(model).graph.node]
        if nodes != self._refitter._engine._plan["nodes"]:
            self._errors.append(ParserError("REFIT_FAILED", "the model is another one"))
            return False
        self._refitter._taken = True
        return True

    def refit_from_file(self, model):
        with open(model, "rb") as file:
            return self.refit_from_bytes(file.read())


CLASSES = (
    Builder,
    EngineInspector,
    IBuilderConfig,
    ICudaEngine,
    IExecutionContext,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    IProfiler,
    ITensor,
    ITimingCache,
    OnnxParser,
    OnnxParserRefitter,
    ParserError,
    Refitter,
    Runtime,
)


class FakeTensorRT:
    """The module. The arguments say what shall go wrong, or how well it fuses."""

    BuilderFlag = BuilderFlag
    HardwareCompatibilityLevel = HardwareCompatibilityLevel
    ILogger = ILogger
    IProfiler = IProfiler
    LayerInformationFormat = LayerInformationFormat
    MemoryPoolType = MemoryPoolType
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    ProfilingVerbosity = ProfilingVerbosity
    TensorIOMode = TensorIOMode

    def __init__(
        self,
        version: str = "10.16.1.11",
        *,
        gpu: bool = True,
        device: str = "a GPU",
        parser_errors: Sequence[ParserError] = (),
        build_fails: bool = False,
        build_messages: Sequence[tuple[str, str]] = (),
        build_raises: Exception | None = None,
        fuses: bool = True,
        while_building=lambda config: None,
    ):
        self.__version__ = version
        self._gpu, self._device, self._parser_errors = gpu, device, list(parser_errors)
        self._build_fails, self._build_messages, self._build_raises = build_fails, build_messages, build_raises
        self._fuses, self._while_building = fuses, while_building
        self._logger = None

    def Builder(self, logger):
        self._start(logger)
        return Builder(self)

    def Runtime(self, logger):
        self._start(logger)
        return Runtime(self)

    def OnnxParser(self, network, logger):
        return OnnxParser(self, network)

    def Refitter(self, engine, logger):
        return Refitter(engine)

    def OnnxParserRefitter(self, refitter, logger):
        return OnnxParserRefitter(refitter)

    def _start(self, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self._logger = weakref.ref(logger)
        if not self._gpu:
            self._say("ERROR", "CUDA initialization failure with error: 100")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _say(self, severity: str, text: str) -> None:
        logger = self._logger()
        assert logger is not None, "the logger is gone, and TensorRT still writes to it"
        logger.log(Severity[severity], text)

    def _matches(self, cache: ITimingCache, ignore_device: bool) -> bool:
        return cache._version == self.__version__ and (ignore_device or cache._device == self._device)

    def _inspected(self, plan: dict) -> str:
        """What the inspector would say: one layer for each node, but one for all of an attention that is fused."""
        layers, kernels = [], {}
        for op, name in plan["nodes"]:
            path, _, part = name.rpartition("/")
            if self._fuses and part in ("logits", "Softmax", "mixed"):
                if path not in kernels:
                    kernels[path] = {"Name": f"_gemm_mha_v2_myl0_{len(layers)}", "LayerType": "kgen", "Metadata": ""}
                    layers.append(kernels[path])
                kernels[path]["Metadata"] += f"\x1f[ONNX Layer: {name}]"
            else:
                layers.append({"Name": name, "LayerType": op, "Metadata": f"[ONNX Layer: {name}]"})
        if not plan["detailed"]:
            return json.dumps({"Layers": [layer["Name"] for layer in layers]})
        return json.dumps({"Layers": layers})
