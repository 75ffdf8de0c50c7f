"""Graph -> ONNX -> TensorRT engine, from one source for TensorRT 10 (from 10.12) and 11.

Networks are strongly typed: every precision is in the graph, as TensorRT 11 knows nothing else and 10 can do the same.

State: every call here is checked against the published Python bindings of 10.16 and 11.4 (`tests/test_trt_surface.py`)
and exercised with a stand-in for them. We have not run it on a GPU: no engine of it has been built or timed by us.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from archdsl.backends.initial import Array
from archdsl.backends.onnx import file as onnx_file
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.trt.attention import attention_cores, read_model
from archdsl.backends.trt.build import build_plan
from archdsl.backends.trt.cache import cache_file
from archdsl.backends.trt.library import TensorRT, failure, gpu_driver, gpu_name, load_tensorrt, make_builder, open_log
from archdsl.backends.trt.options import Batches, EngineOptions
from archdsl.backends.trt.report import AttentionCore, Report, report_of
from archdsl.backends.trt.run import guarded, load_plan
from archdsl.errors import ArchError, BackendError
from archdsl.ir.graph import Graph
from archdsl.writing import as_json, write_file

__all__ = ["Batches", "Engine", "EngineOptions", "Status", "build_engine", "emit", "load_engine", "save", "status"]

NO_GPU_NAME = "unknown GPU"


@dataclass(frozen=True)
class Engine:
    """A built engine: the plan, and what it was built with.

    tensorrt, gpu: a plan runs on this version and this GPU only, unless it was built compatible
    driver: NVIDIA's, at the build; None where it could not be told
    timing_cache_sha256: digest of the timing cache's file after the build, to build from the same timings again
    onnx_sha256: digest of the ONNX model it was built from (of the file without external data, if it has such)
    report: its layers; None when the plan could not be loaded again to look (`notes` says why)
    notes: what TensorRT warned of
    """

    plan: bytes = field(repr=False)
    tensorrt: str
    gpu: str
    options: EngineOptions
    onnx_sha256: str
    build_s: float
    report: Report | None = None
    notes: tuple[str, ...] = ()
    driver: str | None = None
    timing_cache_sha256: str | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.plan).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plan to `path` and what is known of it to `<path>.json`, each whole or not at all.

        Errors: ArchError (`cannot-write`) when the file system refuses
        """
        target = write_file(path, self.plan)
        write_file(sidecar(target), as_json(self.as_json()))
        return target

    def as_json(self) -> dict[str, Any]:
        return {
            "plan_sha256": self.digest,
            "tensorrt": self.tensorrt,
            "gpu": self.gpu,
            "driver": self.driver,
            "onnx_sha256": self.onnx_sha256,
            "build_s": round(self.build_s, 3),
            "options": self.options.as_json(),
            "timing_cache_sha256": self.timing_cache_sha256,
            "notes": list(self.notes),
            "report": self.report.as_json() if self.report else None,
        }


def sidecar(path: str | os.PathLike[str]) -> Path:
    """The file beside a plan that says what it is."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def load_engine(path: str | os.PathLike[str]) -> Engine:
    """An engine that `save` wrote. Errors: BackendError when the plan and its `.json` are not there or do not match"""
    try:
        plan, data = Path(path).read_bytes(), json.loads(sidecar(path).read_bytes())
        found = Engine(
            plan,
            data["tensorrt"],
            data["gpu"],
            EngineOptions.from_json(data["options"]),
            data["onnx_sha256"],
            data["build_s"],
            Report.from_json(data["report"]) if data["report"] else None,
            tuple(data["notes"]),
            data.get("driver"),
            data.get("timing_cache_sha256"),
        )
        matches = found.digest == data["plan_sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise failure("cannot-read", f"{path} is no saved engine: {error}", "build it again", at=str(path)) from error
    if not matches:
        message = f"{path} is not the plan that {sidecar(path).name} tells of"
        raise failure("cannot-read", message, "build it again", at=str(path))
    return found


# ---- building


def emit(
    graph: Graph,
    weights: Mapping[str, Array] | None = None,
    *,
    seed: int = 0,
    options: EngineOptions | None = None,
    opset: int | None = None,
    trt: TensorRT | None = None,
) -> Engine:
    """Build the network's engine. One batch size in `options.batches` gives static shapes, which run fastest.

    weights: arrays by parameter path; by default the initial weights of `seed`
    opset: of the ONNX model on the way; by default the oldest that has all the ops
    Errors: BackendError, see `build_engine`; WeightsError when a tensor is missing or has another shape
    """
    options = options or EngineOptions()
    trt = trt or load_tensorrt()
    batch = options.one_batch
    model = onnx_model.emit(graph, weights, opset=opset, batch=batch, seed=seed)
    cores = attention_cores(model)
    tensors = (value.const_value for value in model.graph.initializers.values())
    if sum(tensor.nbytes for tensor in tensors if tensor) <= onnx_file.EXTERNAL_BYTES:
        return build_engine(onnx_model.serialize(model), options, attentions=cores, trt=trt)
    with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
        path = onnx_model.write(model, Path(folder) / "model.onnx")
        return build_engine(path, options, attentions=cores, trt=trt)


def save(
    graph: Graph,
    path: str | os.PathLike[str],
    weights: Mapping[str, Array] | None = None,
    *,
    seed: int = 0,
    options: EngineOptions | None = None,
    opset: int | None = None,
) -> None:
    """`emit` the network and save the engine at `path`."""
    emit(graph, weights, seed=seed, options=options, opset=opset).save(path)


def build_engine(
    model: bytes | Path,
    options: EngineOptions | None = None,
    *,
    attentions: Sequence[AttentionCore] | None = None,
    trt: TensorRT | None = None,
) -> Engine:
    """Build the engine of an ONNX model, given as its bytes or its file (needed where weights are in other files).

    attentions: the attentions that the report shall look for; by default those found in the model
    trt: TensorRT, by default the one installed
    Errors: BackendError: TensorRT missing or of a wrong version, no GPU, a model it cannot parse (one problem for each
        node), batches that do not fit the model, memory that ran out, or whatever else TensorRT gave up for
    """
    options = options or EngineOptions()
    trt = trt or load_tensorrt()
    data, cores = _opened(model, attentions)
    log = open_log(trt)
    builder = make_builder(trt, log)
    gpu = gpu_name() or NO_GPU_NAME
    start = time.perf_counter()
    with guarded("built the engine", log):
        plan = build_plan(trt, builder, model, options, gpu, log)
    build_s = time.perf_counter() - start
    report, problem = _report(trt, plan, options, cores)
    notes = (*log.warnings(), *([f"no report: {problem}"] if problem else []))
    return Engine(
        plan,
        trt.__version__,
        gpu,
        options,
        hashlib.sha256(data).hexdigest(),
        build_s,
        report,
        notes,
        gpu_driver(),
        _timing_cache_digest(options, trt.__version__, gpu),
    )


def _timing_cache_digest(options: EngineOptions, version: str, gpu: str) -> str | None:
    if options.timing_cache is None:
        return None
    try:
        return hashlib.sha256(cache_file(options.timing_cache, version, gpu).read_bytes()).hexdigest()
    except OSError:
        return None


def _opened(model: bytes | Path, attentions: Sequence[AttentionCore] | None) -> tuple[bytes, Sequence[AttentionCore]]:
    """The model's own bytes and its attentions."""
    name = str(model) if isinstance(model, Path) else "model"
    try:
        data = model.read_bytes() if isinstance(model, Path) else model
        return data, attentions if attentions is not None else attention_cores(read_model(model))
    except Exception as error:
        raise failure("not-onnx", f"{name} is not an ONNX model: {error}", at=name) from error


def _report(
    trt: TensorRT, plan: bytes, options: EngineOptions, cores: Sequence[AttentionCore]
) -> tuple[Report | None, str | None]:
    """The report on a plan, or why there is none: a plan that was built is not lost for that."""
    try:
        loaded = load_plan(trt, plan, host_code=options.version_compatible)
        with guarded("inspected the engine", loaded.log):
            return report_of(loaded.inspected(), cores), None
    except BackendError as error:
        return None, error.problems[0].message


# ---- for `archdsl doctor`


class Status(NamedTuple):
    """Whether engines can be built here, what was found, and the command that helps."""

    ready: bool
    found: str
    fix: str | None = None


def status(load: Callable[[], TensorRT] = load_tensorrt, gpu: Callable[[], str | None] = gpu_name) -> Status:
    """What an attempt to build would meet, without starting TensorRT on the GPU. Never raises."""
    try:
        version = str(load().__version__)
        name = gpu()
    except ArchError as error:
        problem = error.problems[0]
        return Status(False, problem.message, problem.hint)
    except Exception as error:
        return Status(False, f"TensorRT cannot be asked: {error}")
    if name is None:
        return Status(False, f"TensorRT {version}, but no NVIDIA GPU was found", "nvidia-smi")
    return Status(True, f"TensorRT {version} on {name} (not yet run on a GPU by the authors)")
