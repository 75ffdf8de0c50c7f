"""GPUs that engines are built for without one at hand: by compute capability (`sm86`) or by name (`rtx3080`)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from archdsl.suggestions import did_you_mean

BUILT_FOR = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""The capabilities in the bindings of TensorRT for RTX 1.7 (`ComputeCapability`)."""

OLDEST_OF = {"bf16": "sm80", "int8-weights": "sm80", "fp8": "sm89"}
"""The first capability with products in a precision; all have fp32 and fp16. Source: NVIDIA's support matrix of
TensorRT for RTX, docs.nvidia.com/deeplearning/tensorrt-rtx."""

DATA = Path(__file__).with_name("gpus.toml")


@dataclass(frozen=True)
class Figures:
    """What a GPU's maker says that it can do; fields and units as in `gpus.toml`."""

    sms: int
    clock_mhz: float
    bandwidth_gb_s: float
    l2_mb: float
    fp16_tflops: float
    fp32_tflops: float
    source: str


@dataclass(frozen=True)
class Gpu:
    """A GPU that was named, or the capability of several.

    name:       what the user wrote, in its plain spelling: `rtx3080` or `sm86`
    title:      its maker's name for the GPU; of a capability, of the GPU that stands for it
    capability: NVIDIA's compute capability, `sm86`
    figures:    None where the data file has no GPU of the capability
    """

    name: str
    title: str
    capability: str
    figures: Figures | None = None

    @property
    def is_built_for(self) -> bool:
        """Whether TensorRT for RTX has the capability."""
        return self.capability in BUILT_FOR


@cache
def known_gpus() -> Mapping[str, Gpu]:
    """All GPUs of the data file by name, in its order."""
    found = {}
    for name, row in tomllib.loads(DATA.read_text(encoding="utf-8")).items():
        title, capability = row.pop("title"), row.pop("capability")
        found[name] = Gpu(name, title, capability, Figures(**row) if row else None)
    return found


def find_gpu(word: str) -> Gpu | None:
    """The GPU that a word names; None where it names none.

    Example:
        >>> find_gpu("RTX 3080").capability, find_gpu("8.6").title, find_gpu("h100").is_built_for
        ('sm86', 'GeForce RTX 3080', False)
    """
    plain = re.sub(r"[\s_]|geforce|nvidia", "", word.lower())
    if number := re.fullmatch(r"(?:sm-?)?(\d+)\.?(\d)", plain):
        capability = f"sm{number[1]}{number[2]}"
        same = [gpu for gpu in known_gpus().values() if gpu.capability == capability]
        if same:
            return Gpu(capability, same[0].title, capability, same[0].figures)
        return Gpu(capability, capability, capability) if capability in BUILT_FOR else None
    return known_gpus().get(plain) or known_gpus().get(plain.replace("-", ""))


def gpu_problem(word: str, precision: str = "fp16") -> tuple[str, str, str] | None:
    """Why no engine of a precision is built for what a word names: rule, message and hint; None where one is."""
    gpu, built = find_gpu(word), ", ".join(BUILT_FOR)
    names = [name for name, known in known_gpus().items() if known.is_built_for]
    if gpu is None:
        hint = did_you_mean(word.lower(), (*names, *BUILT_FOR)) or f"use one of: {', '.join(names)}"
        return "unknown-name", f"a GPU is a compute capability ({built}) or a GPU's name, got {word!r}", hint
    if not gpu.is_built_for:
        what = gpu.title if gpu.title == gpu.capability else f"{gpu.title} ({gpu.capability})"
        message = f"TensorRT for RTX builds for {built}, and not for {what}"
        return "wrong-value", message, "on a machine with that GPU, the runtime `tensorrt` builds for it"
    oldest = OLDEST_OF.get(precision, BUILT_FOR[0])
    if BUILT_FOR.index(gpu.capability) < BUILT_FOR.index(oldest):
        message = f"{precision} needs {oldest} or newer, got {gpu.name}"
        return "wrong-value", message, "use fp16"
    return None
