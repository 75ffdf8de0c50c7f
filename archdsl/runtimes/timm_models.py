"""Models of timm, benchmarked beside our networks on the same target.

The model is made without pretrained weights (nothing is downloaded), with random numbers in every tensor, as our own
networks have. ONNX runtimes get it from PyTorch's exporter, PyTorch's own runtimes from `torch.export`: in both cases
the graph that timm's code traces to, rewritten by nobody but the runtime. What it must answer is its own eager output.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.backends.precision import precision_named
from archdsl.errors import ArchError, MeasureError, SpecError
from archdsl.failures import failed
from archdsl.runtimes.artefact import Artefact, ArtefactKind, OutputShape, Reference
from archdsl.runtimes.reference import one_thread
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import Target
from archdsl.suggestions import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "timm:"
FAIRNESS = (
    "networks of timm: random weights, as PyTorch exports them, nothing rewritten before the runtime gets them; "
    "in fp16 and bf16 all of the network is in it, while ours keep islands of fp32"
)
CHECK_IMAGES = 2
SEED = 0
SPREAD = 0.02


def reference_network(word: str, option: str = "--against") -> TimmNetwork:
    """`timm:swin_tiny_patch4_window7_224` -> that model of timm.

    Raises: SpecError for another prefix or a name that timm does not have; MeasureError (`runtime-missing`) where timm
        is not installed or cannot be imported
    """
    library, colon, name = word.partition(":")
    if not colon or library != "timm" or not name:
        message = f"{option} takes `timm:NAME`, but got {word!r}"
        hint = "write --against timm:swin_tiny_patch4_window7_224"
        raise SpecError.at(option, word, "unknown-name", message, hint)
    timm = _timm(option, word)
    if not timm.is_model(name):
        meant = did_you_mean(name, timm.list_models())
        hint = meant or "python -c 'import timm; print(timm.list_models())' lists them"
        raise SpecError.at(option, word, "unknown-name", f"timm {timm.__version__} has no model `{name}`", hint)
    return TimmNetwork(name)


def _timm(option: str, word: str) -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name == "timm":
            hint = "pip install 'archdsl[train]'"
            message = f"{word} needs the package timm, which is not installed"
        else:
            hint, message = f"pip install {error.name}", f"`import timm` fails: {error}"
        raise failed("runtime-missing", message, where=option, hint=hint) from error
    except Exception as error:  # a torchvision that does not fit this torch raises RuntimeError
        message = f"`import timm` fails: {type(error).__name__}: {error}"
        hint = "torch, torchvision and timm must fit together: see `pip list`"
        raise failed("runtime-missing", message, where=option, hint=hint) from error
    return timm


@dataclass(frozen=True)
class TimmNetwork:
    """A model of timm, by its name there. Made once; exported for each target."""

    model_name: str

    @property
    def name(self) -> str:
        return PREFIX + self.model_name

    @cached_property
    def model(self) -> nn.Module:
        """In eval mode, fp32, on the CPU."""
        import timm

        return _with_random_numbers(timm.create_model(self.model_name, pretrained=False)).eval()

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """One image's shape: [C, H, W]."""
        config: Any = self.model.pretrained_cfg
        return tuple(int(size) for size in config["input_size"])

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one image, counted by PyTorch's `FlopCounterMode` (which counts each as 2).

        On the device `meta`: a CPU's fused attention is an op that it does not count. Without gradients: the
        counter follows them through each layer, and fails where a layer hands on several values.
        """
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        counter, model = FlopCounterMode(display=False), copy.deepcopy(self.model).to("meta").requires_grad_(False)
        with counter, torch.no_grad():
            model(torch.zeros(1, *self.input_shape, device="meta"))
        return int(counter.get_total_flops()) // 2

    @cached_property
    def expected(self) -> Reference:
        """What the model answers to random images: [CHECK_IMAGES, C, H, W] -> [CHECK_IMAGES, *output_shape]."""
        import torch

        images = torch.randn(CHECK_IMAGES, *self.input_shape, generator=torch.Generator().manual_seed(SEED))
        with torch.no_grad(), one_thread():
            return Reference(images.numpy(), self.model(images).numpy())

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference]:
        """Raises: MeasureError for a runtime that takes neither ONNX files nor exported programs, for a missing
        exporter, or when timm or PyTorch cannot make, run, count or export the model"""
        kind = _kind_for(target)
        try:
            return self._made(kind, target, folder)
        except ArchError:
            raise
        except Exception as error:  # whatever somebody else's code raises
            message = f"{self.name} cannot be made: {type(error).__name__}: {str(error)[:500]}"
            raise failed("exception", message, where=self.name) from error

    def _made(self, kind: ArtefactKind, target: Target, folder: Path) -> tuple[Artefact, Reference]:
        typed = runtime(target.runtime).typed
        precision = target.precision if typed else "fp32"
        path = folder / f"timm.{self.model_name}.{precision}.batch{target.batch}.{kind}"
        if not path.is_file():
            self._write(kind, path, precision, target.batch)
        import timm
        import torch

        artefact = Artefact(
            kind=kind,
            graph_hash=hashlib.sha256(f"timm {timm.__version__} {self.model_name}".encode()).hexdigest(),
            input_shape=self.input_shape,
            path=path,
            name=self.name,
            form="exported",
            build=f"exported by torch {torch.__version__} {precision}",
            macs=self.macs,
            outputs=(OutputShape("output", self.expected.outputs.shape[1:]),),
        )
        return artefact, replace(self.expected, tolerance=precision_named(target.precision).tolerance)

    def _write(self, kind: ArtefactKind, path: Path, precision: str, batch: int) -> None:
        import torch

        module = _in_precision(self.model, precision)
        images = torch.zeros(batch, *self.input_shape)
        if kind == "onnx" and find_spec("onnxscript") is None:
            message = f"exporting {self.name} needs the package onnxscript, which is not installed"
            raise failed("runtime-missing", message, where=self.name, hint="pip install onnxscript")
        try:
            with torch.no_grad(), one_thread(), _quiet():
                if kind == "pt2":
                    torch.export.save(torch.export.export(module, (images,)), path)
                else:
                    torch.onnx.export(module, (images,), path, dynamo=True, external_data=False, verbose=False)
        except MeasureError:
            raise
        except Exception as error:  # whatever tracing somebody else's code raises
            path.unlink(missing_ok=True)
            message = f"PyTorch cannot export {self.name}: {type(error).__name__}: {str(error)[:500]}"
            raise failed("exception", message, where=self.name) from error


def _kind_for(target: Target) -> ArtefactKind:
    """The form that the target's runtime takes a foreign network in. Raises: MeasureError (`wrong-artefact`)"""
    chosen = runtime(target.runtime)
    if not chosen.analytic:
        kinds: tuple[ArtefactKind, ...] = ("onnx", "pt2")
        for kind in kinds:
            if kind in chosen.kinds:
                return kind
    why = "it computes latencies" if chosen.analytic else f"it takes {' and '.join(chosen.kinds)}"
    message = f"{target.runtime} is not for networks of other libraries: {why}"
    raise failed("wrong-artefact", message, where=target.runtime)


def _in_precision(model: nn.Module, precision: str) -> nn.Module:
    """fp32 images -> fp32 logits, the model between them in `precision`."""
    import torch

    if precision == "fp32":
        return model
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]

    class Converted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = copy.deepcopy(model).to(dtype)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.model(x.to(dtype))
            return y.float()

    return Converted().eval()


def _with_random_numbers(model: nn.Module) -> nn.Module:
    """Every floating tensor drawn anew, so that no vector of ones or zeros can be dropped and the logits depend on the
    image: matrices keep the variance of what passes, vectors are what they were, and a little more."""
    import torch

    numbers = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim > 1:
                tensor.normal_(0, prod(tensor.shape[1:]) ** -0.5, generator=numbers)
            else:
                tensor.add_(torch.empty_like(tensor).normal_(0, SPREAD, generator=numbers))
    return model


@contextlib.contextmanager
def _quiet() -> Any:
    """Without what exporters print and log."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
