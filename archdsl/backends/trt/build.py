"""ONNX model -> plan: the calls that parse, configure and build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archdsl.backends.trt import api as api
from archdsl.backends.trt.cache import cache_file, shared_timings
from archdsl.backends.trt.library import Log, TensorRT, failure, gave_up
from archdsl.backends.trt.options import EngineOptions
from archdsl.errors import BackendError, Problem, at_argument


def build_plan(
    trt: TensorRT, builder: api.Builder, model: bytes | Path, options: EngineOptions, gpu: str, log: Log, *, fixed: bool
) -> bytes:
    """The plan of a model. fixed: a dynamic batch becomes the only size in `options.batches`.

    Errors: BackendError as `engine.build_engine` says; anything the bindings raise"""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if network is None:
        raise gave_up("made a network", log)
    parser = trt.OnnxParser(network, log.logger)  # keeps the weights: it must live until the engine is built
    parsed = parser.parse_from_file(str(model)) if isinstance(model, Path) else parser.parse(model)
    if not parsed:
        raise _unparsed(parser, log)
    if fixed:
        _fix_batch(network, options)
    config = builder.create_builder_config()
    _configure(trt, config, options)
    _name_capabilities(trt, config, options.capabilities)
    for profile in _profiles(builder, network, options):
        if config.add_optimization_profile(profile) < 0:
            raise gave_up("took the batch sizes", log)
    timings = options.timing_cache and cache_file(options.timing_cache, trt.__version__, gpu)
    with shared_timings(config, timings):
        memory = builder.build_serialized_network(network, config)
    if memory is None:
        raise gave_up("built the engine", log)
    plan = api.copied(memory)
    del parser
    return plan


def _fix_batch(network: api.INetworkDefinition, options: EngineOptions) -> None:
    """Give a dynamic batch the one size that it is built for: shapes are known, and kernels need compute none."""
    if not options.batches or options.one_batch is None:
        return
    for tensor in map(network.get_input, range(network.num_inputs)):
        shape = [tensor.shape[i] for i in range(len(tensor.shape))]
        if shape[:1] == [-1]:
            tensor.shape = (options.one_batch, *shape[1:])


def _configure(trt: TensorRT, config: api.IBuilderConfig, options: EngineOptions) -> None:
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    flags = trt.BuilderFlag
    if not options.tf32:
        config.clear_flag(flags.TF32)
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if options.refit:
        config.set_flag(flags.REFIT)
    if options.strip_weights:
        config.set_flag(flags.STRIP_PLAN)
        if not options.refit:
            config.set_flag(flags.REFIT_IDENTICAL)


def built_for(trt: TensorRT) -> dict[str, Any]:
    """The compute capabilities that TensorRT for RTX builds for, as `sm86`, and what it calls them."""
    known = trt.ComputeCapability  # type: ignore[attr-defined]  # TensorRT has none
    names = sorted((name for name in dir(known) if name.startswith("SM")), key=lambda name: int(name[2:]))
    return {name.lower(): getattr(known, name) for name in names}


def _name_capabilities(trt: TensorRT, config: Any, capabilities: tuple[str, ...]) -> None:
    """Which GPUs the engine is for. Errors: BackendError for one that this release does not build for"""
    if not capabilities:
        return
    known = built_for(trt)
    known["current"] = trt.ComputeCapability.CURRENT  # type: ignore[attr-defined]
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        if name not in known or not config.set_compute_capability(known[name], index):
            message = f"TensorRT for RTX {trt.__version__} does not build for {name}, but for {', '.join(known)}"
            raise failure("wrong-value", message, at=name)


def _profiles(
    builder: api.Builder, network: api.INetworkDefinition, options: EngineOptions
) -> Iterator[api.IOptimizationProfile]:
    """One optimisation profile for each of the batches; none when the model has one size."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    shapes = {tensor.name: tuple(tensor.shape[i] for i in range(len(tensor.shape))) for tensor in inputs}
    for name, shape in shapes.items():
        if -1 in shape[1:]:
            raise failure("dynamic-shape", f"only the batch axis may be dynamic, but input {name} is {shape}", at=name)
    if not any(shape[:1] == (-1,) for shape in shapes.values()):
        sizes = {shape[0] for shape in shapes.values() if shape}
        if options.batches and sizes != {options.one_batch}:
            message = f"the model's batch is {', '.join(map(str, sorted(sizes)))}, and not what `batches` asks for"
            raise failure("batches", message, "export the model with a dynamic batch, or for that size", at="batches")
        return
    if not options.batches:
        message = "the model's batch is dynamic, so `batches` must say which sizes to build for"
        raise failure("batches", message, "for example batches=(Batches(1, 8, 32),)", at="batches")
    for batches in options.batches:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            if shape[:1] == (-1,):
                sizes_ = ((size, *shape[1:]) for size in (batches.min, batches.opt, batches.max))
                profile.set_shape(name, *sizes_)
        yield profile


def _unparsed(parser: api.OnnxParser, log: Log) -> BackendError:
    """All that the parser found, each at its node."""
    problems = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        node, op = error.node_name(), error.node_operator()
        where = f"{op} {node!r}" if node or op else "the model"
        message = f"TensorRT cannot parse {where}: {error.desc()} ({error.code().name})"
        path = node.partition("/")[0] or None  # nodes are called `path` or `path/OpType`
        problems.append(Problem(at_argument("tensorrt", node or "model"), "parser", message, path=path))
    if not problems:
        return failure("parser", f"TensorRT cannot parse the model: {log.reason()}")
    return BackendError(problems)
