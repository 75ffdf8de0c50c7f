"""What a study wants: its constraints, its objectives and how it searches. Plain models; the study gives them meaning.

Names of runtimes, samplers, recipes and data sets are not known here: who knows them checks them, and says what is
wrong with `space.locate("objectives.latency.runtime")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from archdsl.language.text.explain import broken
from archdsl.language.text.quantities import Count, Duration, Energy, Size

_Word = Annotated[str, Field(min_length=1, max_length=500)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=100)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class _Bounds(_Model):
    @property
    def labels(self) -> tuple[str, ...]:
        """The targets that have bounds of their own."""
        return tuple(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _is_a_range(self) -> Any:
        low, high = getattr(self, "min", None), getattr(self, "max", None)
        if low is None and high is None and not self.labels:
            raise broken("missing-key", "a constraint needs a `max` or a `min`")
        if low is not None and high is not None and low > high:
            raise broken("out-of-range", f"`min` must not be more than `max`, but got {low} and {high}", field="min")
        return self


class CountBounds(_Bounds):
    """At least `min`, at most `max`."""

    min: Count | None = None
    max: Count | None = None


class DurationBounds(_Bounds):
    """At least `min`, at most `max`, in milliseconds."""

    min: Duration | None = None
    max: Duration | None = None


class ShareBounds(_Bounds):
    """At least `min`, at most `max`, as a share of 1."""

    min: Annotated[float, Field(ge=0, le=1)] | None = None
    max: Annotated[float, Field(ge=0, le=1)] | None = None


class RateBounds(_Bounds):
    """At least `min`, at most `max`, in images a second."""

    min: Annotated[float, Field(ge=0)] | None = None
    max: Annotated[float, Field(ge=0)] | None = None


class SizeBounds(_Bounds):
    """At least `min`, at most `max`, in bytes."""

    min: Size | None = None
    max: Size | None = None


class JouleBounds(_Bounds):
    """At least `min`, at most `max`, in millijoules for one image."""

    min: Energy | None = None
    max: Energy | None = None


class _BoundsByTarget(_Bounds):
    """Bounds of what is measured: `min` and `max` hold on every target, those under a target's label on that one."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _names_only_targets(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key, bounds in value.items():
                if key not in cls.model_fields and not isinstance(bounds, Mapping):
                    message = f"unknown key `{key}`: a constraint has `max`, `min`, or a target with bounds of its own"
                    raise broken("unknown-key", message, field=str(key))
        return value

    def on(self, label: str) -> Any:
        """The bounds on one target: an object with `min` and `max`; None where nothing is asked of it."""
        own = (self.__pydantic_extra__ or {}).get(label)
        if own is not None:
            return own
        return self if getattr(self, "min", None) is not None or getattr(self, "max", None) is not None else None


class LatencyBounds(DurationBounds, _BoundsByTarget):
    """Milliseconds for one batch."""

    __pydantic_extra__: dict[str, DurationBounds] = Field(init=False)


class ThroughputBounds(RateBounds, _BoundsByTarget):
    """Images a second."""

    __pydantic_extra__: dict[str, RateBounds] = Field(init=False)


class PeakMemoryBounds(SizeBounds, _BoundsByTarget):
    """Bytes, which may be written `512 MiB`."""

    __pydantic_extra__: dict[str, SizeBounds] = Field(init=False)


class EnergyBounds(JouleBounds, _BoundsByTarget):
    """Millijoules for one image."""

    __pydantic_extra__: dict[str, JouleBounds] = Field(init=False)


class Constraints(_Model):
    """What every network of the front must keep to."""

    params: CountBounds | None = None
    macs: CountBounds | None = None
    latency: LatencyBounds | None = None
    latency_estimate: DurationBounds | None = None
    throughput: ThroughputBounds | None = None
    peak_memory: PeakMemoryBounds | None = None
    energy: EnergyBounds | None = None
    accuracy: ShareBounds | None = None


class StartFrom(_Model):
    """Weights that trainings start from. `from` says whose names the file uses, `ema` takes averaged weights under a
    prefix of their own, `new_head` starts the classifier anew.
    """

    file: Annotated[str, Field(min_length=1, max_length=4096)]
    source: _Name = Field(default="archdsl", alias="from")
    ema: bool = False
    new_head: bool = False


class Train(_Model):
    """Accuracy by real training. `data` and `recipe` are a name, or a mapping of its settings."""

    data: _Word | dict[str, Any]
    recipe: _Word | dict[str, Any] = "quick"
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    seeds: int = Field(default=1, ge=1, le=1000)
    threads: int | None = Field(default=None, ge=1, le=1024)
    weights: StartFrom | None = None


class AccuracyObjective(_Model):
    """How good a network is, and how that is found out."""

    train: Train


class TargetObjective(_Model):
    """What a study measures on: a runtime, its device, precision, batch size and threads.

    name: what the target is called in a study of several; by default its runtime and what differs from one fp32 image
        on one CPU thread: `onnxruntime`, `openvino-b8`, `tensorrt-cuda-fp16`
    device: by default the one that the runtime knows first
    gpu: of an engine that is built ahead of time; it is not run, so its latency cannot be measured: `latency_estimate`
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=60)] | None = None
    runtime: _Name = "onnxruntime"
    device: _Word | None = None
    precision: _Name = "fp32"
    batch: int = Field(default=1, ge=1, le=65536)
    threads: int = Field(default=1, ge=1, le=1024)
    gpu: _Word | None = None

    @property
    def label(self) -> str:
        """The target's name, unique in a study."""
        parts = [
            self.runtime,
            self.device if self.device not in (None, "cpu") else "",
            self.gpu or "",
            self.precision if self.precision != "fp32" else "",
            f"b{self.batch}" if self.batch != 1 else "",
            f"t{self.threads}" if self.threads != 1 else "",
        ]
        return self.name or "-".join(part for part in parts if part)

    def fields(self) -> dict[str, Any]:
        """What is set, but for the name: a mapping that a target can be made of."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


class EstimateObjective(_Model):
    """A latency that nobody measures: a runtime compiles each network ahead of time for a GPU that need not be here,
    and it is estimated what that engine takes.

    gpu: a compute capability (`sm86`) or the name of a GPU (`rtx3080`)
    """

    runtime: _Name = "tensorrt-rtx"
    gpu: _Word
    precision: _Name = "fp16"
    batch: int = Field(default=1, ge=1, le=65536)

    def fields(self) -> dict[str, Any]:
        """A mapping that a target can be made of."""
        return self.model_dump()


class CountObjective(_Model):
    """A count has nothing to set."""


def _targets(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


_Targets = Annotated[tuple[TargetObjective, ...], BeforeValidator(_targets), Field(min_length=1)]

MEASURED = ("latency", "throughput", "peak_memory", "energy")
"""Objectives that a measurement on a target gives."""


class Objectives(_Model):
    """What a study makes better: accuracy and throughput up, everything else down.

    latency, throughput, peak_memory, energy: a target or a list of targets; an empty mapping under one of the last
        three means the targets of the latency
    latency_estimate: a runtime and a GPU; never mixed with a latency that was measured
    """

    accuracy: AccuracyObjective | None = None
    latency: _Targets | None = None
    throughput: _Targets | None = None
    peak_memory: _Targets | None = None
    energy: _Targets | None = None
    latency_estimate: EstimateObjective | None = None
    params: CountObjective | None = None
    macs: CountObjective | None = None

    @model_validator(mode="after")
    def _labels_are_unique(self) -> Any:
        for kind in MEASURED:
            labels = [target.label for target in self.targets_of(kind)]
            twice = next((label for label in labels if labels.count(label) > 1), None)
            if twice is not None:
                message = f"two targets are called `{twice}`; give one of them a `name`, or leave it out"
                raise broken("wrong-value", message, field=kind)
        known: dict[str, TargetObjective] = {}
        if any(target.label in ("min", "max") for target in self.targets):
            raise broken("wrong-value", "a target cannot be called `min` or `max`; give it another `name`")
        for kind in MEASURED:
            for target in self.targets_of(kind):
                other = known.setdefault(target.label, target)
                if other.fields() != target.fields():
                    message = f"two targets are called `{target.label}`; give one of them another `name`"
                    raise broken("wrong-value", message, field=kind)
        for label, target in known.items():
            same = next((other for other in known if known[other].fields() == target.fields() and other != label), None)
            if same is not None:
                raise broken("wrong-value", f"`{label}` and `{same}` are the same target; leave one of them out")
        return self

    def targets_of(self, kind: str) -> tuple[TargetObjective, ...]:
        """The targets of one of `MEASURED`, none when it is no objective."""
        given: tuple[TargetObjective, ...] | None = getattr(self, kind)
        if kind != "latency" and given is not None and len(given) == 1 and not given[0].model_fields_set:
            return self.latency or given
        return given or ()

    @property
    def targets(self) -> tuple[TargetObjective, ...]:
        """All targets that the study measures on, each once, the latency's first."""
        found = {target.label: target for kind in MEASURED for target in self.targets_of(kind)}
        return tuple(found.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives that are set: `accuracy`, `latency`, `params`, …; with several targets `latency@openvino`."""
        several = len(self.targets) > 1
        found: list[str] = []
        for name in type(self).model_fields:
            if name in MEASURED and several:
                found += [f"{name}@{target.label}" for target in self.targets_of(name)]
            elif getattr(self, name) is not None:
                found.append(name)
        return tuple(found)


class EarlyStopping(_Model):
    """When trainings are compared: after `first` epochs and then each `eta` times as many; 1 / `eta` go on."""

    first: int = Field(default=1, ge=1, le=100_000)
    eta: int = Field(default=3, ge=2, le=100)


class Confirm(_Model):
    """What is evaluated again for every network of the front before it is declared: its latencies and whatever else is
    measured (`timings`), and its accuracy, over so many more `seeds`.
    """

    timings: bool = True
    seeds: int = Field(default=0, ge=0, le=1000)


class Search(_Model):
    """How the study goes: a sampler's name, how many trials, the seed, designs to try first, and when to stop earlier:
    a training (`early_stopping`), or all, after so many networks without a gain beyond noise (`patience`).

    foresee: learn latencies before they are measured, where that helps the sampler
    confirm: what is evaluated again before a front is declared
    """

    sampler: _Name = "auto"
    trials: int = Field(default=100, ge=1, le=10_000_000)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    start: tuple[_Word, ...] = Field(default=(), max_length=60)
    early_stopping: EarlyStopping | None = None
    patience: int | None = Field(default=None, ge=1, le=10_000_000)
    confirm: Confirm = Field(default_factory=Confirm)
    foresee: bool = True
