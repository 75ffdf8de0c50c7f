"""`compile_engine`: a network through NVIDIA's own compiler, for a GPU that need not be here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from archdsl.backends.onnx.dialects import PLAIN, dialect_for
from archdsl.backends.precision import precision_named
from archdsl.backends.trt.engine import RTX, Batches, EngineOptions, build_engine, emit
from archdsl.backends.trt.gpus import Gpu, find_gpu, gpu_problem
from archdsl.backends.trt.library import load_tensorrt
from archdsl.compiler import AnySpec, as_spec, export_onnx
from archdsl.errors import BackendError
from archdsl.language import Spec
from archdsl.language.architecture.lower import lower
from archdsl.latency.engine.report import EngineReport, report_of_engine
from archdsl.runtimes.export import network_of
from archdsl.runtimes.onnx_files import OnnxNetwork
from archdsl.runtimes.placeholder_weights import placeholder_weights

RUNTIME = "tensorrt-rtx"


def compile_engine(
    spec: AnySpec,
    gpu: str = "sm86",
    precision: str = "fp16",
    batch: int = 1,
    *,
    weights: Mapping[str, Any] | None = None,
    form: str = "deploy",
    name: str | None = None,
) -> EngineReport:
    """Compile a network with TensorRT for RTX, ahead of time, and read what became of it. Nothing is run.

    Args:
        spec: a spec, or the name or path of one, or the path of an `.onnx` file of anybody
        gpu: a compute capability (`sm86`) or the name of a GPU (`rtx3080`)
        precision: of a spec's network (see `backends.precision`). An ONNX file has its own types
        batch: images at once; an ONNX file of another fixed batch is refused
        weights: of a spec, by archdsl's names; by default placeholder weights
        form: of a spec's network, one of `runtimes.export.FORMS`
        name: what the report calls the network; by default its own name, or the file's path
    Returns: the kernels with their work, bytes and nodes, and an estimate of the latency that was not validated
    Raises: BackendError when the library is missing, it does not build for the GPU, or it refuses the network;
        SpecError for a wrong spec; ArchError for a file that cannot be read
    Example:
        >>> import archdsl
        >>> report = archdsl.compile_engine("micro_swin", gpu="rtx3080")
        >>> report.attentions_fused, report.attentions
        (4, 4)
    """
    chosen, trt = _gpu(gpu, precision), load_tensorrt(RTX)
    options = EngineOptions.ahead((chosen.capability,), {}, batches=(Batches.only(batch),))
    compiler = f"{RTX.title} {trt.__version__}"
    if isinstance(spec, str | os.PathLike) and str(os.fspath(spec)).endswith(".onnx"):
        file = OnnxNetwork(Path(spec))
        file.check()
        engine = build_engine(file.path, options, product=RTX, trt=trt)
        return report_of_engine(
            engine, chosen, network=name or file.name, precision=file.precision, batch=batch, compiler=compiler
        )
    loaded = as_spec(spec)
    dialect = dialect_for(RUNTIME, precision) if form == "deploy" else PLAIN
    network = network_of(loaded, form, weights, precision=precision, dialect=dialect, batch=batch)
    if precision_named(precision).quantized:
        with TemporaryDirectory(prefix="archdsl-") as folder:
            path = Path(folder) / "model.onnx"
            stored = weights or placeholder_weights(lower(loaded))
            how: dict[str, Any] = {"batch": batch, "runtime": RUNTIME, "images": _any_images(loaded)}
            export_onnx(loaded, path, stored, True, precision, **how)
            engine = build_engine(path, options, product=RTX, trt=trt)
    else:
        engine = emit(network.graph, network.weights, options=options, product=RTX, dialect=dialect, trt=trt)
    return report_of_engine(
        engine,
        chosen,
        network=name or loaded.name,
        precision=precision,
        batch=batch,
        compiler=compiler,
        graph=network.graph,
        spec=loaded,
    )


def _any_images(spec: Spec) -> Any:
    """Images to take ranges from, [2, C, H, W]. Nothing is run, and no kernel depends on a range."""
    import numpy as np

    (image,) = lower(spec).inputs
    return np.random.default_rng(0).standard_normal((2, *image.type.shape), dtype=np.float32)


def _gpu(word: str, precision: str) -> Gpu:
    """Errors: BackendError for a word that names none, or one that it does not build for"""
    if problem := gpu_problem(word, precision):
        raise BackendError.at("gpu", word, *problem)
    found = find_gpu(word)
    assert found is not None
    return found
