"""The makers: each writes one kind of artefact to a folder, runs what it wrote if it can, and says what it is."""

from __future__ import annotations

import io
import json
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from archdsl.backends import backend
from archdsl.backends.initial import Array
from archdsl.backends.onnx.dialects import dialect_for
from archdsl.backends.onnx.run import NoRuntime, answer_of, run_onnx
from archdsl.backends.precision import precision_named
from archdsl.backends.trt.gpus import find_gpu
from archdsl.builds.artefact import Made, Ready, outputs_of
from archdsl.compiler import build, deploy, export_onnx
from archdsl.errors import BackendError
from archdsl.files import write_file
from archdsl.language.architecture.lower import lower
from archdsl.passes.runner import run_passes
from archdsl.versions import installed_version
from archdsl.weights.reading import read_weights
from archdsl.weights.writing import write_weights

TORCH = f"torch {torch.__version__}"

MOST_ENGINE_IMAGES = 64
"""The largest batch of an engine whose batch is dynamic."""


def make_torch(ready: Ready, folder: Path) -> Made:
    """The weights by archdsl's names, from which `archdsl.build` makes the network in any form."""
    path = folder / "model.safetensors"
    write_weights(path, ready.state)
    outputs = outputs_of(build(ready.config.spec, read_weights(path)).eval(), ready.images)
    return Made("torch", (path,), "train", "fp32", ready.parity("torch", outputs, "fp32"), TORCH)


def make_source(ready: Ready, folder: Path) -> Made:
    """One plain PyTorch file, and the weights that it loads."""
    path, weights = folder / "model.py", folder / "model.safetensors"
    file = backend("source").source_file(ready.config.spec)
    write_file(path, file.text)
    write_weights(weights, ready.state)
    module = _network_in(path)
    module.load_state_dict(read_weights(weights))
    outputs = outputs_of(module.eval(), ready.images)
    parity, facts = ready.parity("source", outputs, "fp32"), {"note": file.note} if file.note else {}
    return Made("source", (path, weights), "train", "fp32", parity, TORCH, facts=facts)


def _network_in(path: Path) -> torch.nn.Module:
    """A source file's network: the last class that it defines."""
    found = [each for each in runpy.run_path(str(path), run_name=path.stem).values() if isinstance(each, type)]
    network: Callable[[], torch.nn.Module] = [each for each in found if each.__module__ == path.stem][-1]
    return network()


def make_onnx(ready: Ready, folder: Path) -> Made:
    """An ONNX model. int8 and fp8 take their ranges from every second image, and are measured on the others."""
    config, path = ready.config, folder / "model.onnx"
    facts: dict[str, Any] = {"batch": config.batch or "dynamic", "for": config.runtime}
    images, measured = _calibration(ready)
    if images is not None:
        facts["calibrated_on"] = len(images)
    form = (config.deploy, config.precision)
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in config.trained_on.items()}
    options: dict[str, Any] = {"batch": config.batch, "runtime": config.runtime, "images": images, "metadata": metadata}
    export_onnx(config.spec, path, ready.state, *form, opset=config.opset, **options)
    usual = dialect_for(config.runtime or "").opset_for(bf16=config.precision == "bf16")
    facts["opset"] = config.opset or usual
    files = tuple(sorted(folder.glob(f"{path.name}*")))
    try:
        names = list(lower(config.spec).inference().outputs)
        several = {"outputs": names} if len(names) > 1 else {}
        runtime, outputs = run_onnx(path, ready.images[measured], config.precision, **several)
    except BackendError as error:
        if not isinstance(error, NoRuntime) and facts["opset"] <= usual:
            raise
        reason = error.problems[0].message  # an opset that was asked for may be newer than the runtimes here
        return Made("onnx", files, config.form, config.precision, unmeasured=reason, facts=facts)
    parity = ready.parity("onnx", outputs, config.precision, measured)
    run_by = f"{runtime} {installed_version(runtime)}"
    if config.score is not None:
        facts.update(ready.accuracy(answer_of(path, runtime), config.precision))
    return Made("onnx", files, config.form, config.precision, parity, run_by, facts=facts)


def _calibration(ready: Ready) -> tuple[Array | None, slice]:
    """The images that ranges are taken from (none where the precision needs none), and which are left to measure."""
    if not precision_named(ready.config.precision).calibrated:
        return None, slice(None)
    if len(ready.images) == 1:
        return ready.images, slice(None)
    return ready.images[::2], slice(1, None, 2)


def make_pt2(ready: Ready, folder: Path) -> Made:
    """An exported program: `torch.export.load(path).module()` runs it without archdsl."""
    config, path = ready.config, folder / "model.pt2"
    module = build(config.spec, ready.state, deploy=config.deploy, precision=config.precision).eval()
    example = torch.from_numpy(np.resize(ready.images, (config.batch or 2, *ready.images.shape[1:])))
    dynamic = None if config.batch else ({0: torch.export.Dim("batch", min=1, max=65536)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes=dynamic)
        written = io.BytesIO()  # torch's own writer aborts the process when a disk is full
        torch.export.save(program, written)
        write_file(path, written.getbuffer())
        loaded = torch.export.load(path).module()
        outputs = outputs_of(loaded, ready.images, config.batch)
    parity, facts = ready.parity("pt2", outputs, config.precision), {"batch": config.batch or "dynamic"}
    facts |= ready.accuracy(lambda images: outputs_of(loaded, images, config.batch or len(images)), config.precision)
    return Made("pt2", (path,), config.form, config.precision, parity, TORCH, facts=facts)


def make_tensorrt(ready: Ready, folder: Path) -> Made:
    """A TensorRT engine for the GPU of this machine, and the facts about it."""
    config, path, trt = ready.config, folder / "model.engine", backend("tensorrt")
    network = deploy(config.spec, ready.state, precision=config.precision)
    options = trt.EngineOptions.of(config.engine, batches=(_batches(config.batch),))
    trt.emit(network.graph, network.weights, options=options).save(path)
    facts = {"batch": config.batch or f"1 to {MOST_ENGINE_IMAGES}"}
    reason = "the engine was built, but archdsl does not run engines to compare yet"
    return Made("tensorrt", (path, trt.sidecar(path)), "deploy", config.precision, unmeasured=reason, facts=facts)


def make_tensorrt_rtx(ready: Ready, folder: Path) -> Made:
    """An engine that TensorRT for RTX builds ahead of time for the named GPUs, and the facts about it.

    Float precisions are in the graph; the others are made as ONNX, of which the engine is built.
    """
    config, path, trt = ready.config, folder / "model.rtx.engine", backend("tensorrt")
    gpus = [found for found in map(find_gpu, config.gpus) if found is not None]
    capabilities = tuple(dict.fromkeys(gpu.capability for gpu in gpus))
    options = trt.EngineOptions.ahead(capabilities, config.engine, batches=(_batches(config.batch),))
    facts: dict[str, Any] = {"batch": config.batch or f"1 to {MOST_ENGINE_IMAGES}"}
    if precision_named(config.precision).quantized:
        images, _ = _calibration(ready)
        if images is not None:
            facts["calibrated_on"] = len(images)
        with TemporaryDirectory(prefix="archdsl-") as made:
            onnx = Path(made) / "model.onnx"
            how: dict[str, Any] = {"batch": config.batch, "runtime": "tensorrt-rtx", "images": images}
            export_onnx(config.spec, onnx, ready.state, True, config.precision, **how)
            engine = trt.build_engine(onnx, options, product=trt.RTX)
    else:
        network, dialect = deploy(config.spec, ready.state, precision=config.precision), dialect_for("tensorrt-rtx")
        network = run_passes(network, dialect.passes(config.batch))[0]
        engine = trt.emit(network.graph, network.weights, options=options, product=trt.RTX, dialect=dialect)
    engine.save(path)
    report = engine.report
    facts |= {"gpu": engine.gpu, "build_s": round(engine.build_s, 3), "engine_bytes": len(engine.plan)}
    if report is not None:
        facts |= {"kernels": len(engine.kernels), "attentions": len(report.attentions)}
        facts["attentions_fused"] = report.num_fused
    reason = engine.not_run
    return Made("tensorrt-rtx", (path, trt.sidecar(path)), "deploy", config.precision, unmeasured=reason, facts=facts)


def _batches(batch: int | None) -> Any:
    """The batch sizes of an engine: one, or a range where the batch is dynamic."""
    batches = backend("tensorrt").Batches
    return batches.only(batch) if batch else batches(1, 1, MOST_ENGINE_IMAGES)


MAKERS: dict[str, Callable[[Ready, Path], Made]] = {
    "torch": make_torch,
    "source": make_source,
    "onnx": make_onnx,
    "pt2": make_pt2,
    "tensorrt": make_tensorrt,
    "tensorrt-rtx": make_tensorrt_rtx,
}
"""One for each of `config.KINDS`."""
