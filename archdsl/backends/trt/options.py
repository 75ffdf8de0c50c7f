"""How a TensorRT engine is built. Precision is not here: it is in the graph, as casts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from archdsl.backends.trt.library import failure
from archdsl.files import cache_folder
from archdsl.json_fields import JsonFields


@dataclass(frozen=True)
class Batches:
    """Batch sizes an engine serves, `min` to `max`, tuned for `opt`: one optimisation profile.

    Errors: BackendError unless 1 <= min <= opt <= max
    """

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            got = f"{self.min}, {self.opt}, {self.max}"
            raise failure("out-of-range", f"batches must be 1 <= min <= opt <= max, but got {got}", at="batches")

    @classmethod
    def only(cls, size: int) -> Batches:
        """One size."""
        return cls(size, size, size)


KNOBS: dict[str, type] = {
    "optimization_level": int,
    "workspace_bytes": int,
    "tf32": bool,
    "version_compatible": bool,
    "hardware_compatible": bool,
    "refit": bool,
    "strip_weights": bool,
    "timing_cache": str,
}
"""The options that a user sets one by one, and what each is: all but `batches` and `capabilities`."""

AHEAD_KNOBS = ("optimization_level", "workspace_bytes", "tf32")
"""Those that an engine built ahead of time can have. Of the others TensorRT for RTX 1.7 itself says: it knows no
hardware compatibility and no timing cache; refitting and stripping want a driver, version compatibility a library that
is not in its wheels."""


@dataclass(frozen=True)
class EngineOptions(JsonFields):
    """The options of a build.

    workspace_bytes: GPU memory that layers may use while they work; None leaves it to TensorRT
    optimization_level: 0 (builds fast) to 5 (tries most kernels); level 0 uses no timing cache
    batches: one optimisation profile each; none for models of one batch size
    tf32: let products of fp32 numbers round their inputs to 10 bits. TensorRT does by default; here fp32 is fp32
    version_compatible: a plan that later versions of TensorRT run too, at some cost in speed
    hardware_compatible: a plan that Ampere and newer GPUs run, not only the one it was built on, at some cost in speed
    refit: weights can be replaced later, at some cost in speed
    strip_weights: leave weights out of the plan; they are put in when it is loaded. Without `refit` they must be the
        same as at the build
    timing_cache: a file, or a folder of one file for each TensorRT and GPU, that builds share
    capabilities: of the GPUs that TensorRT for RTX builds for, such as `sm86`; `current` is the GPU of this machine,
        and none leaves it to the builder (8.0, 8.6, 8.9, 12.0 and newer, as its documentation says)

    Errors: BackendError for a value out of range

    Example:
        >>> EngineOptions(workspace_bytes=2**30).workspace_bytes
        1073741824
    """

    workspace_bytes: int | None = None
    optimization_level: int = 3
    batches: tuple[Batches, ...] = ()
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strip_weights: bool = False
    timing_cache: Path | None = None
    capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.optimization_level <= 5:
            message = f"optimization_level must be 0 to 5, but got {self.optimization_level}"
            raise failure("out-of-range", message, at="optimization_level")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            message = f"workspace_bytes must be 1 or more, but got {self.workspace_bytes}"
            raise failure("out-of-range", message, at="workspace_bytes")

    @classmethod
    def of(cls, knobs: Mapping[str, Any], *, batches: tuple[Batches, ...] = ()) -> EngineOptions:
        """Options by the names in `KNOBS`. By default builds share the timing cache in the user's cache folder."""
        cache = Path(knobs["timing_cache"]) if "timing_cache" in knobs else cache_folder() / "tensorrt"
        with suppress(OSError):  # `cache.shared_timings` warns of it
            (cache if "timing_cache" not in knobs else cache.parent).mkdir(parents=True, exist_ok=True)
        return cls(**{**knobs, "timing_cache": cache}, batches=batches)

    @classmethod
    def ahead(cls, capabilities: tuple[str, ...], knobs: Mapping[str, Any], *, batches: tuple[Batches, ...]) -> Self:
        """Options of an engine that is built ahead of time, by the names in `AHEAD_KNOBS`.

        Raises: BackendError for an option that such an engine cannot have
        """
        if strange := [name for name in knobs if name not in AHEAD_KNOBS]:
            message = f"an engine that is built ahead of time has no option {strange[0]}"
            raise failure("unknown-name", message, f"one of {', '.join(AHEAD_KNOBS)}", at=strange[0])
        return cls(**knobs, batches=batches, capabilities=capabilities)

    @property
    def one_batch(self) -> int | None:
        """The batch size, if the engine serves only one; 1 when none is named."""
        sizes = {size for batches in self.batches for size in (batches.min, batches.max)}
        return None if len(sizes) > 1 else next(iter(sizes), 1)

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "timing_cache": str(self.timing_cache) if self.timing_cache else None}
