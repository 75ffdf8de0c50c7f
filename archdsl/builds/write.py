"""Making a build. `build.json` is its marker: a folder that has it is complete."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

from archdsl.builds.artefact import Ready, installed, make_ready
from archdsl.builds.folder import new_contents, write_marker
from archdsl.builds.makers import MAKERS
from archdsl.builds.plan import Plan
from archdsl.compiler import cost, identity
from archdsl.spec.lower import lower
from archdsl.writing import write_file

MARKER = "build.json"

INVOLVED = ("archdsl", "numpy", "onnx", "onnx-ir", "onnxruntime", "openvino", "tensorrt", "torch")
"""Packages whose versions a build names."""


def write_build(plan: Plan, out: str | os.PathLike[str]) -> dict[str, Any]:
    """Make the artefacts of `plan` the contents of the folder `out`. -> what `build.json` says.

    Each artefact that can be run here is read back and run on the same images as the network in its train form (fp32,
    PyTorch); when one answers differently there is no build. After any error `out` is as it was.

    Errors: ArchError for a plan that makes no sense, or a folder that is not ours or cannot be written; WeightsError;
        BackendError when an artefact cannot be made, or does not pass its numeric gate
    """
    plan.check()
    with new_contents(out, MARKER) as folder:
        _need_libraries(plan)
        ready = make_ready(plan)
        made = [MAKERS[kind](ready, folder) for kind in dict.fromkeys(plan.emit)]
        write_file(folder / "spec.yaml", plan.spec.to_yaml())
        return write_marker(folder, MARKER, {**facts_of(ready), "artefacts": [each.as_json() for each in made]})


def _need_libraries(plan: Plan) -> None:
    """Errors: BackendError now, rather than after the other artefacts are made."""
    if "tensorrt" in plan.emit:
        from archdsl.backends.trt.library import load_tensorrt

        load_tensorrt()


def facts_of(ready: Ready) -> dict[str, Any]:
    """What is built and from what, without the artefacts."""
    plan, costs = ready.plan, cost(ready.plan.spec)
    return {
        "name": plan.spec.name,
        "hash": identity(plan.spec),
        "params": costs.params,
        "macs": costs.macs,
        "weights": plan.weights_from,
        "weights_sha256": _digest_of_state(ready.state),
        "images": plan.images_from,
        "input": ["batch", *plan.image_shape],
        "output": ["batch", *ready.wanted.shape[1:]],
        "changed": [f"{path}: {note}" for path, note in lower(plan.spec).notes],
        "made_with": {"python": platform.python_version(), **{name: installed(name) for name in INVOLVED}},
    }


def _digest_of_state(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()
