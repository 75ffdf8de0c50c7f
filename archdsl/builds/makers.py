"""The makers: each writes one kind of artefact to a folder, runs what it wrote if it can, and says what it is."""

from __future__ import annotations

import io
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archdsl.backends import backend
from archdsl.backends.onnx.run import NoRuntime, run_onnx
from archdsl.builds.artefact import Made, Ready, installed, outputs_of
from archdsl.compiler import build, deploy, export_onnx
from archdsl.weights.reading import read_weights
from archdsl.weights.writing import write_weights
from archdsl.writing import write_file

TORCH = f"torch {torch.__version__}"

MOST_ENGINE_IMAGES = 64
"""The largest batch of an engine whose batch is dynamic."""


def make_torch(ready: Ready, folder: Path) -> Made:
    """The weights by archdsl's names, from which `archdsl.build` makes the network in any form."""
    path = folder / "model.safetensors"
    write_weights(path, ready.state)
    outputs = outputs_of(build(ready.plan.spec, read_weights(path)).eval(), ready.images)
    return Made("torch", (path,), "train", "fp32", ready.parity("torch", outputs, "fp32"), TORCH)


def make_source(ready: Ready, folder: Path) -> Made:
    """One plain PyTorch file, and the weights that it loads."""
    path, weights = folder / "model.py", folder / "model.safetensors"
    write_file(path, backend("source").emit_spec(ready.plan.spec))
    write_weights(weights, ready.state)
    module = _network_in(path)
    module.load_state_dict(read_weights(weights))
    outputs = outputs_of(module.eval(), ready.images)
    return Made("source", (path, weights), "train", "fp32", ready.parity("source", outputs, "fp32"), TORCH)


def _network_in(path: Path) -> torch.nn.Module:
    """A source file's network: the last class that it defines."""
    found = [each for each in runpy.run_path(str(path), run_name=path.stem).values() if isinstance(each, type)]
    network: Callable[[], torch.nn.Module] = [each for each in found if each.__module__ == path.stem][-1]
    return network()


def make_onnx(ready: Ready, folder: Path) -> Made:
    """An ONNX model. int8 takes its ranges from every second image, and is measured on the others."""
    plan, path = ready.plan, folder / "model.onnx"
    calibrating, measured = slice(None), slice(None)
    facts: dict[str, Any] = {"batch": plan.batch or "dynamic", "for": plan.runtime}
    if plan.precision == "int8" and len(ready.images) > 1:
        calibrating, measured = slice(0, None, 2), slice(1, None, 2)
    images = ready.images[calibrating] if plan.precision == "int8" else None
    if images is not None:
        facts["calibrated_on"] = len(images)
    form = (plan.deploy, plan.precision)
    export_onnx(plan.spec, path, ready.state, *form, batch=plan.batch, runtime=plan.runtime, images=images)
    files = tuple(sorted(folder.glob(f"{path.name}*")))
    try:
        runtime, outputs = run_onnx(path, ready.images[measured], plan.precision)
    except NoRuntime as error:
        return Made("onnx", files, plan.form, plan.precision, unmeasured=error.problems[0].message, facts=facts)
    parity = ready.parity("onnx", outputs, plan.precision, measured)
    return Made("onnx", files, plan.form, plan.precision, parity, f"{runtime} {installed(runtime)}", facts=facts)


def make_pt2(ready: Ready, folder: Path) -> Made:
    """An exported program: `torch.export.load(path).module()` runs it without archdsl."""
    plan, path = ready.plan, folder / "model.pt2"
    module = build(plan.spec, ready.state, deploy=plan.deploy, precision=plan.precision).eval()
    example = torch.from_numpy(np.resize(ready.images, (plan.batch or 2, *ready.images.shape[1:])))
    dynamic = None if plan.batch else ({0: torch.export.Dim("batch", min=1, max=65536)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes=dynamic)
        written = io.BytesIO()  # torch's own writer aborts the process when a disk is full
        torch.export.save(program, written)
        write_file(path, written.getbuffer())
        outputs = outputs_of(torch.export.load(path).module(), ready.images, plan.batch)
    parity = ready.parity("pt2", outputs, plan.precision)
    return Made("pt2", (path,), plan.form, plan.precision, parity, TORCH, facts={"batch": plan.batch or "dynamic"})


def make_tensorrt(ready: Ready, folder: Path) -> Made:
    """A TensorRT engine for the GPU of this machine, and the facts about it."""
    plan, path, trt = ready.plan, folder / "model.engine", backend("tensorrt")
    network = deploy(plan.spec, ready.state, precision=plan.precision)
    batches = trt.Batches.only(plan.batch) if plan.batch else trt.Batches(1, 1, MOST_ENGINE_IMAGES)
    options = trt.EngineOptions.of(plan.engine, batches=(batches,))
    trt.save(network.graph, path, network.weights, options=options)
    facts = {"batch": plan.batch or f"1 to {MOST_ENGINE_IMAGES}"}
    reason = "the engine was built, but archdsl does not run engines to compare yet"
    return Made("tensorrt", (path, trt.sidecar(path)), "deploy", plan.precision, unmeasured=reason, facts=facts)


MAKERS: dict[str, Callable[[Ready, Path], Made]] = {
    "torch": make_torch,
    "source": make_source,
    "onnx": make_onnx,
    "pt2": make_pt2,
    "tensorrt": make_tensorrt,
}
"""One for each of `plan.KINDS`."""
