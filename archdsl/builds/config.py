"""What to build, and which wishes make no sense together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from archdsl.backends.onnx.dialects import DIALECTS
from archdsl.backends.onnx.opsets import opset_problem
from archdsl.backends.precision import PRECISIONS
from archdsl.backends.trt.gpus import gpu_problem
from archdsl.backends.trt.options import AHEAD_KNOBS
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.language.architecture.model import Spec

if TYPE_CHECKING:
    from archdsl.backends.initial import Array

TO_OWN = ("torch", "source")
"""Kinds that hold the network as it is, to train or to change: in the train form, fp32, for any batch."""

TO_RUN = ("onnx", "pt2", "tensorrt", "tensorrt-rtx")
"""Kinds for inference: their form, precision and batch are a matter of choice."""

KINDS = (*TO_OWN, *TO_RUN)

ENGINES = ("tensorrt", "tensorrt-rtx")
"""Kinds that a TensorRT builds."""


Scoring = Callable[[Callable[["Array"], "Array"]], dict[str, Any]]
"""What answers images [N, C, H, W] -> the scores of its answers: `accuracy`, and whatever else is measured."""


@dataclass(frozen=True)
class BuildConfig:
    """What to build, and from what.

    weights: a state dict of the train form; by default the initial weights of `seed`
    weights_from: where they come from, in words
    weights_notes: what was chosen or adapted when they were imported, in sentences
    emit: the `KINDS` of artefacts
    deploy: the artefacts that run are made from the deploy form; else from the train form
    precision: of the artefacts that run
    batch: how many images those take at once; None leaves the batch axis dynamic
    runtime: which one a deployed ONNX file is for; by default none in particular (see `compiler.export_onnx`)
    opset: of the ONNX file; by default the oldest that has all ops of the network (see `compiler.export_onnx`)
    engine: options of the TensorRT builder (see `backends.trt.options.EngineOptions`)
    gpus: what `tensorrt-rtx` is built for, by capability or name (`backends.trt.gpus`); none leaves it to the builder
    images: real ones, floats [N, C, H, W], to measure parity with and to calibrate int8 and fp8; by default generated
        ones
    images_from: where they come from, in words
    trained_on: what is known of the data that the weights were trained on: `classes`, their names in the order of the
        outputs; `preprocessing`, with `mean` and `std` by channel, `size`, `crop` and `interpolation`, or None for
        images that are not pixels. It is written into what is built
    score: measures accuracies on validation images; None: they are not measured
    scored_on: those images, in words

    Example:
        >>> from archdsl.language import load
        >>> config = BuildConfig(load("micro_swin"), emit=("onnx",), precision="fp16")
        >>> config.form, config.image_shape
        ('deploy', (3, 32, 32))
    """

    spec: Spec
    weights: Mapping[str, Any] | None = None
    weights_from: str = "initial weights"
    weights_notes: Sequence[str] = ()
    emit: Sequence[str] = ("torch", "onnx")
    deploy: bool = True
    precision: str = "fp32"
    batch: int | None = 1
    runtime: str | None = None
    opset: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    gpus: Sequence[str] = ()
    images: Array | None = None
    images_from: str = "generated"
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    score: Scoring | None = None
    scored_on: str = ""
    seed: int = 0

    @property
    def form(self) -> str:
        """Of the artefacts that run."""
        return "deploy" if self.deploy else "train"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W]."""
        return (self.spec.input.channels, *self.spec.input.size)

    def check(self) -> None:
        """Errors: ArchError, one problem for each wish that makes no sense."""
        if problems := list(_problems(self)):
            raise ArchError(problems)


def _problems(config: BuildConfig) -> Iterator[Problem]:
    for kind in config.emit:
        if kind not in KINDS:
            yield _wrong("--emit", kind, f"there is no artefact {kind!r}", f"there are {', '.join(KINDS)}")
    if config.precision not in PRECISIONS:
        message = f"there is no precision {config.precision!r}"
        yield _wrong("--precision", config.precision, message, f"there are {', '.join(PRECISIONS)}")
    if config.batch is not None and config.batch < 1:
        yield _wrong("--batch", config.batch, "a batch has 1 image or more", "use 1, or None for a dynamic batch")
    yield from _unused(config)
    if config.runtime is not None and config.runtime not in DIALECTS:
        message = f"no ONNX form was measured for {config.runtime!r}"
        yield _wrong("--for", config.runtime, message, f"use one of {', '.join(DIALECTS)}, or leave --for out")
    elif config.runtime is not None and "onnx" in config.emit and (not config.deploy or config.precision == "int8"):
        what = "int8" if config.precision == "int8" else "the train form"
        yield _wrong("--for", config.runtime, f"{what} is written in one way for all runtimes", "leave --for out")
    precision = PRECISIONS.get(config.precision)
    needs = {"bf16": config.precision == "bf16", "narrow_in_fp16": precision is not None and precision.narrow_in_fp16}
    if config.opset is not None and (wrong := opset_problem(config.opset, **needs)):
        yield Problem(at_argument("--opset", str(config.opset)), "out-of-range", *wrong)
    if config.precision != "fp32" and not config.deploy:
        message = f"the train form is fp32, so {config.precision} needs the deploy form"
        yield _wrong("--no-deploy", config.precision, message, "leave --no-deploy out")
    engines = [kind for kind in ENGINES if kind in config.emit]
    if engines and not config.deploy:
        message = "an engine is always made from the deploy form"
        yield _wrong("--no-deploy", engines[0], message, "leave --no-deploy out, or build the engine on its own")
    if precision is not None and precision.quantized:
        others = [kind for kind in ("pt2", "tensorrt") if kind in config.emit]
        for kind in others:
            hint = "use --emit onnx; TensorRT builds an engine of that file"
            yield _wrong("--emit", kind, f"{precision.name} is made as ONNX only, not as {kind}", hint)
        if precision.calibrated and config.images is None and not others:
            message = f"{precision.name} takes its ranges from real images, and there are none"
            hint = "give the data with --data, or an image folder or an .npy file with --images"
            yield _wrong("--precision", precision.name, message, hint)
    yield from _gpu_problems(config)
    if config.images is not None:
        yield from _image_problems(config, config.images)


def _gpu_problems(config: BuildConfig) -> Iterator[Problem]:
    """GPUs that no engine is built for, and options that an engine built ahead of time cannot have."""
    for word in config.gpus:
        if problem := gpu_problem(word, config.precision):
            yield Problem(at_argument("--gpu", word), *problem)
    for name in config.engine if "tensorrt-rtx" in config.emit else ():
        if name not in AHEAD_KNOBS:
            message = f"TensorRT for RTX, which builds ahead of time, has no option {name}"
            yield _wrong("--engine", name, message, f"it has {', '.join(AHEAD_KNOBS)}")


def _wrong(option: str, got: object, message: str, hint: str) -> Problem:
    return Problem(at_argument(option, str(got)), "wrong-value", message, hint)


def _unused(config: BuildConfig) -> Iterator[Problem]:
    """Wishes about kinds that are not made."""
    batch = "dynamic" if config.batch is None else str(config.batch)
    engine = " ".join(f"{key}={value}" for key, value in config.engine.items())
    for option, got, usual, kinds in (
        ("--precision", config.precision, "fp32", TO_RUN),
        ("--batch", batch, "1", TO_RUN),
        ("--for", config.runtime or "", "", ("onnx",)),
        ("--opset", "" if config.opset is None else str(config.opset), "", ("onnx",)),
        ("--engine", engine, "", ENGINES),
        ("--gpu", ",".join(config.gpus), "", ("tensorrt-rtx",)),
    ):
        if got != usual and not set(kinds) & set(config.emit):
            message = f"{option} is about {', '.join(kinds)}, but {' and '.join(config.emit)} is what is made"
            hint = f"add --emit {kinds[0]}, or leave {option} out"
            yield _wrong(option, got, message, hint)


def _image_problems(config: BuildConfig, images: Array) -> Iterator[Problem]:
    place = at_argument("--images", config.images_from)
    if images.ndim != 4 or images.shape[1:] != config.image_shape or not len(images) or images.dtype.kind != "f":
        wanted, got = ", ".join(map(str, config.image_shape)), f"{images.dtype}{list(images.shape)}"
        message = f"images must be floats [N, {wanted}], but these are {got}"
        hint = "normalise them as the network was trained; an image folder is resized and normalised for you"
        yield Problem(place, "shape", message, hint)
    elif not np.isfinite(images).all():
        yield Problem(place, "not-finite", "some pixels are not finite numbers", "leave those images out")
