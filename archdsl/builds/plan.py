"""What to build, and which wishes make no sense together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from archdsl.backends.onnx.dialects import DIALECTS
from archdsl.backends.precision import PRECISIONS
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.spec.model import Spec

if TYPE_CHECKING:
    from archdsl.backends.initial import Array

TO_OWN = ("torch", "source")
"""Kinds that hold the network as it is, to train or to change: in the train form, fp32, for any batch."""

TO_RUN = ("onnx", "pt2", "tensorrt")
"""Kinds for inference: their form, precision and batch are a matter of choice."""

KINDS = (*TO_OWN, *TO_RUN)


@dataclass(frozen=True)
class Plan:
    """What to build, and from what.

    weights: a state dict of the train form; by default the initial weights of `seed`
    weights_from: where they come from, in words
    emit: the `KINDS` of artefacts
    deploy: the artefacts that run are made from the deploy form; else from the train form
    precision: of the artefacts that run
    batch: how many images those take at once; None leaves the batch axis dynamic
    runtime: which one a deployed ONNX file is for; by default none in particular (see `compiler.export_onnx`)
    engine: options of the TensorRT builder (see `backends.trt.options.EngineOptions`)
    images: real ones, floats [N, C, H, W], to measure parity with and to calibrate int8; by default generated ones
    images_from: where they come from, in words
    """

    spec: Spec
    weights: Mapping[str, Any] | None = None
    weights_from: str = "initial weights"
    emit: Sequence[str] = ("torch", "onnx")
    deploy: bool = True
    precision: str = "fp32"
    batch: int | None = 1
    runtime: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    images: Array | None = None
    images_from: str = "generated"
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


def _problems(plan: Plan) -> Iterator[Problem]:
    def wrong(option: str, got: object, message: str, hint: str) -> Problem:
        return Problem(at_argument(option, str(got)), "wrong-value", message, hint)

    for kind in plan.emit:
        if kind not in KINDS:
            yield wrong("--emit", kind, f"there is no artefact {kind!r}", f"there are {', '.join(KINDS)}")
    if plan.precision not in PRECISIONS:
        message = f"there is no precision {plan.precision!r}"
        yield wrong("--precision", plan.precision, message, f"there are {', '.join(PRECISIONS)}")
    if plan.batch is not None and plan.batch < 1:
        yield wrong("--batch", plan.batch, "a batch has 1 image or more", "use 1, or None for a dynamic batch")
    yield from _unused(plan)
    if plan.runtime is not None and plan.runtime not in DIALECTS:
        message = f"no ONNX form was measured for {plan.runtime!r}"
        yield wrong("--for", plan.runtime, message, f"use one of {', '.join(DIALECTS)}, or leave --for out")
    elif plan.runtime is not None and "onnx" in plan.emit and (not plan.deploy or plan.precision == "int8"):
        what = "int8" if plan.precision == "int8" else "the train form"
        yield wrong("--for", plan.runtime, f"{what} is written in one way for all runtimes", "leave --for out")
    if plan.precision != "fp32" and not plan.deploy:
        message = f"the train form is fp32, so {plan.precision} needs the deploy form"
        yield wrong("--no-deploy", plan.precision, message, "leave --no-deploy out")
    if "tensorrt" in plan.emit and not plan.deploy:
        message = "an engine is always made from the deploy form"
        yield wrong("--no-deploy", "tensorrt", message, "leave --no-deploy out, or build the engine on its own")
    if plan.precision == "int8":
        others = [kind for kind in ("pt2", "tensorrt") if kind in plan.emit]
        for kind in others:
            hint = "use --emit onnx; TensorRT builds an engine of that file"
            yield wrong("--emit", kind, f"int8 is made as ONNX only, not as {kind}", hint)
        if plan.images is None and not others:
            message = "int8 takes its ranges from real images, and there are none"
            yield wrong("--precision", "int8", message, "give an image folder or an .npy file with --images")
    if plan.images is not None:
        yield from _image_problems(plan, plan.images)


def _unused(plan: Plan) -> Iterator[Problem]:
    """Wishes about kinds that are not made."""
    batch = "dynamic" if plan.batch is None else str(plan.batch)
    engine = " ".join(f"{key}={value}" for key, value in plan.engine.items())
    for option, got, usual, kinds in (
        ("--precision", plan.precision, "fp32", TO_RUN),
        ("--batch", batch, "1", TO_RUN),
        ("--for", plan.runtime or "", "", ("onnx",)),
        ("--engine", engine, "", ("tensorrt",)),
    ):
        if got != usual and not set(kinds) & set(plan.emit):
            message = f"{option} is about {', '.join(kinds)}, but {' and '.join(plan.emit)} is what is made"
            hint = f"add --emit {kinds[0]}, or leave {option} out"
            yield Problem(at_argument(option, got), "wrong-value", message, hint)


def _image_problems(plan: Plan, images: Array) -> Iterator[Problem]:
    place = at_argument("--images", plan.images_from)
    if images.ndim != 4 or images.shape[1:] != plan.image_shape or not len(images) or images.dtype.kind != "f":
        wanted, got = ", ".join(map(str, plan.image_shape)), f"{images.dtype}{list(images.shape)}"
        message = f"images must be floats [N, {wanted}], but these are {got}"
        hint = "normalise them as the network was trained; an image folder is resized and normalised for you"
        yield Problem(place, "shape", message, hint)
    elif not np.isfinite(images).all():
        yield Problem(place, "not-finite", "some pixels are not finite numbers", "leave those images out")
