"""Making a build. `build.json` is its marker: a folder that has it is complete."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

from archdsl.backends.trt.library import CLASSIC, RTX, load_tensorrt
from archdsl.builds.artefact import Ready, make_ready
from archdsl.builds.config import BuildConfig
from archdsl.builds.folder import new_contents, write_marker
from archdsl.builds.image_range import USUAL, range_note
from archdsl.builds.makers import MAKERS
from archdsl.compiler import cost, identity
from archdsl.files import write_file
from archdsl.language.architecture.lower import lower
from archdsl.versions import installed_version

MARKER = "build.json"

INVOLVED = ("archdsl", "numpy", "onnx", "onnx-ir", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx-cu13", "torch")
"""Packages whose versions a build names."""


def write_build(config: BuildConfig, out: str | os.PathLike[str]) -> dict[str, Any]:
    """Make the artefacts of `config` the contents of the folder `out`. -> what `build.json` says.

    Each artefact that can be run here is read back and run on the same images as the network in its train form (fp32,
    PyTorch); when one answers differently there is no build. After any error `out` is as it was.

    Errors: ArchError for a config that makes no sense, or a folder that is not ours or cannot be written; WeightsError;
        BackendError when an artefact cannot be made, or does not pass its numeric gate

    Example:
        >>> import tempfile
        >>> from archdsl.language import load
        >>> with tempfile.TemporaryDirectory() as out:
        ...     facts = write_build(BuildConfig(load("micro_swin"), emit=("source",)), f"{out}/micro")
        >>> facts["name"]
        'micro_swin'
    """
    config.check()
    with new_contents(out, MARKER) as folder:
        for kind, product in (("tensorrt", CLASSIC), ("tensorrt-rtx", RTX)):
            if kind in config.emit:
                load_tensorrt(product)  # raises now, rather than after the other artefacts are made
        ready = make_ready(config)
        made = [MAKERS[kind](ready, folder) for kind in dict.fromkeys(config.emit)]
        write_file(folder / "spec.yaml", config.spec.to_yaml())
        return write_marker(folder, MARKER, {**facts_of(ready), "artefacts": [each.as_json() for each in made]})


def facts_of(ready: Ready) -> dict[str, Any]:
    """What is built and from what, without the artefacts."""
    config, costs = ready.config, cost(ready.config.spec)
    note, ends = _image_note(config), lower(config.spec).inference().outputs
    outputs = [["batch", *node.type.shape] for node in ends.values()]
    return {
        **config.trained_on,
        **({"image_note": note} if note else {}),
        "name": config.spec.name,
        "hash": identity(config.spec),
        "params": costs.params,
        "macs": costs.macs,
        "weights": config.weights_from,
        "weights_notes": list(config.weights_notes),
        "weights_sha256": _digest_of_state(ready.state),
        "images": config.images_from,
        **({"accuracy": {"scored_on": config.scored_on, "fp32": ready.fp32_scores}} if ready.fp32_scores else {}),
        "input": ["batch", *config.image_shape],
        "output": outputs[0],
        **({"outputs": dict(zip(ends, outputs, strict=True))} if len(outputs) > 1 else {}),
        "changed": [f"{path}: {note}" for path, note in lower(config.spec).notes],
        "made_with": {"python": platform.python_version(), **{name: installed_version(name) for name in INVOLVED}},
    }


def _image_note(config: BuildConfig) -> str | None:
    expected = config.trained_on.get("preprocessing", USUAL)
    if config.images is None or expected is None or len(expected["mean"]) not in (1, config.image_shape[0]):
        return None
    return range_note(config.images, expected)


def _digest_of_state(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()
