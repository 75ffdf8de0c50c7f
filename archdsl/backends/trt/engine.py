"""Graph -> ONNX -> TensorRT engine, from one source for TensorRT 10 (from 10.12) and 11, and TensorRT for RTX.

Networks are strongly typed: every precision is in the graph, as TensorRT 11 knows nothing else and 10 can do the same.

State: TensorRT for RTX builds engines ahead of time without a GPU: CI parses and builds with it. For TensorRT every
call here is checked against the published Python bindings of 10.16 and 11.4 (`tests/test_trt_surface.py`) and exercised
with a stand-in for them. Nothing has been loaded or run on a GPU by us.
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
from archdsl.backends.onnx.dialects import PLAIN, Dialect
from archdsl.backends.trt.attention import attention_cores, read_model
from archdsl.backends.trt.build import build_plan, built_for
from archdsl.backends.trt.build_log import Kernel, kernels_of, report_of_log
from archdsl.backends.trt.cache import cache_file
from archdsl.backends.trt.library import (
    CLASSIC,
    RTX,
    Product,
    TensorRT,
    failure,
    gpu_driver,
    gpu_name,
    load_tensorrt,
    make_builder,
    open_log,
)
from archdsl.backends.trt.options import Batches, EngineOptions
from archdsl.backends.trt.report import AttentionCore, Report, report_of
from archdsl.backends.trt.run import guarded, load_plan
from archdsl.errors import ArchError, BackendError
from archdsl.files import as_json, write_file
from archdsl.ir.graph import Graph
from archdsl.json_fields import JsonFields
from archdsl.owned import read_own

__all__ = [
    "CLASSIC",
    "RTX",
    "Batches",
    "Engine",
    "EngineOptions",
    "Status",
    "build_engine",
    "build_status",
    "emit",
    "load_engine",
    "status",
]

NO_GPU_NAME = "unknown GPU"
BUILDERS_CHOICE = "sm80, sm86, sm89, sm120 and newer"
"""What an engine of TensorRT for RTX is for where no capability was named, as its documentation says."""


@dataclass(frozen=True)
class Engine(JsonFields):
    """A built engine: the plan, and what it was built with.

    tensorrt, gpu: a plan runs on this version and this GPU only, unless it was built compatible; of one that was built
        ahead of time the compute capabilities
    driver: the version of NVIDIA's driver at the build; None where it is unknown
    build_s: seconds that the build took
    timing_cache_sha256: digest of the timing cache's file after the build, for a build from the same timings
    onnx_sha256: digest of the ONNX model that it was built from, without external data
    report: its layers; None when the plan could not be loaded to inspect them (`notes` says why)
    notes: TensorRT's warnings
    product: Python's name of the module that built it
    kernels: as the builder's log describes them, of an engine that was built ahead of time; not in its `.json`
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
    product: str = CLASSIC.module
    kernels: tuple[Kernel, ...] = field(default=(), repr=False)

    @property
    def not_run(self) -> str | None:
        """What to know of an engine that nothing here has loaded; None for one that was loaded and inspected."""
        if self.product != RTX.module:
            return None
        return f"built ahead of time for {self.gpu}, from NVIDIA's compiler alone; it was neither loaded nor run"

    @property
    def digest(self) -> str:
        """SHA-256 of the plan."""
        return hashlib.sha256(self.plan).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plan to `path` and its description to `<path>.json`, each whole or not at all.

        Raises: ArchError (`cannot-write`) when the file system refuses
        """
        target = write_file(path, self.plan)
        write_file(sidecar(target), as_json(self.as_json()))
        return target

    def as_json(self) -> dict[str, Any]:
        return {
            "plan_sha256": self.digest,
            "product": self.product,
            **({"not_run": self.not_run} if self.not_run else {}),
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
    """The JSON file beside a plan that describes it."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def load_engine(path: str | os.PathLike[str]) -> Engine:
    """An engine that `save` wrote. Raises: BackendError when the plan or its `.json` is missing or does not match."""
    try:
        plan, data = read_own(path), json.loads(read_own(sidecar(path)))
        found = Engine.from_json({**data, "plan": plan})
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
    product: Product = CLASSIC,
    dialect: Dialect = PLAIN,
    trt: TensorRT | None = None,
) -> Engine:
    """Build the network's engine, by way of ONNX.

    Args:
        weights: arrays by parameter path; by default the initial weights of `seed`
        options: how it is built; one batch size in `options.batches` gives static shapes, which run fastest
        opset: of the ONNX model; by default the oldest that has all the ops
        product: whose builder
        dialect: of the ONNX model; its rewrites of the graph are done already
        trt: the product's module, by default the installed one

    Raises: BackendError, see `build_engine`; WeightsError when a tensor is missing or has another shape
    """
    options = options or EngineOptions()
    trt = trt or load_tensorrt(product)
    model = onnx_model.emit(graph, weights, opset=opset, batch=options.one_batch, seed=seed, dialect=dialect)
    if onnx_file.num_weight_bytes(model) <= onnx_file.EXTERNAL_BYTES:
        return build_engine(onnx_model.serialize(model), options, product=product, trt=trt)
    with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
        return build_engine(onnx_model.write(model, Path(folder) / "model.onnx"), options, product=product, trt=trt)


def build_engine(
    model: bytes | Path,
    options: EngineOptions | None = None,
    *,
    product: Product = CLASSIC,
    trt: TensorRT | None = None,
) -> Engine:
    """Build the engine of an ONNX model.

    Args:
        model: its bytes, or its file, which is needed where weights are external
        product: whose builder; one that builds ahead of time gives an engine that was neither loaded nor run
        trt: the product's module, by default the installed one

    Raises: BackendError when TensorRT is missing or unsupported, there is no GPU, the model cannot be parsed (one
        problem for each node), `batches` do not fit the model, memory runs out, or TensorRT fails otherwise
    """
    options = options or EngineOptions()
    trt = trt or load_tensorrt(product)
    data, cores = _opened(model)
    log = open_log(trt)
    builder = make_builder(trt, log)
    gpu = (", ".join(options.capabilities) or BUILDERS_CHOICE) if product.ahead_of_time else gpu_name() or NO_GPU_NAME
    start = time.perf_counter()
    with guarded("built the engine", log):
        plan = build_plan(trt, builder, model, options, gpu, log, fixed=product.ahead_of_time)
    build_s = time.perf_counter() - start
    onnx_sha256 = hashlib.sha256(data).hexdigest()
    if product.ahead_of_time:
        kernels = kernels_of(log.layers)
        problem = None if kernels else "the builder's log describes no layer"
        report = report_of_log(kernels, cores) if kernels else None
    else:
        kernels = ()
        report, problem = _report(trt, plan, options, cores)
    notes = (*log.warnings(), *([f"no report: {problem}"] if problem else []))
    timings = _timing_cache_digest(options, trt.__version__, gpu)
    return Engine(
        plan,
        trt.__version__,
        gpu,
        options,
        onnx_sha256,
        build_s,
        report,
        notes,
        driver=None if product.ahead_of_time else gpu_driver(),
        timing_cache_sha256=timings,
        product=product.module,
        kernels=kernels,
    )


def _timing_cache_digest(options: EngineOptions, version: str, gpu: str) -> str | None:
    if options.timing_cache is None:
        return None
    try:
        return hashlib.sha256(read_own(cache_file(options.timing_cache, version, gpu))).hexdigest()
    except OSError:
        return None


def _opened(model: bytes | Path) -> tuple[bytes, Sequence[AttentionCore]]:
    """The model's own bytes and its attentions."""
    name = str(model) if isinstance(model, Path) else "model"
    try:
        data = model.read_bytes() if isinstance(model, Path) else model
        return data, attention_cores(read_model(model))
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
    """Whether a build would start, found out without starting TensorRT on the GPU. Never raises."""
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


def build_status(load: Callable[[], TensorRT] = lambda: load_tensorrt(RTX)) -> Status:
    """Whether engines can be built ahead of time, without a GPU, and for which capabilities. Never raises."""
    try:
        trt = load()
        return Status(True, f"{RTX.title} {trt.__version__} builds, without a GPU, for {', '.join(built_for(trt))}")
    except ArchError as error:
        return Status(False, error.problems[0].message, error.problems[0].hint)
    except Exception as error:
        return Status(False, f"{RTX.title} cannot be asked: {error}")
