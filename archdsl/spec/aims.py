"""What a study wants: its constraints, its objectives and how it searches. Plain models; the study gives them meaning.

Names of runtimes, samplers, recipes and data sets are not known here: who knows them checks them, and says what is
wrong with `space.locate("objectives.latency.runtime")`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from archdsl.spec.explain import broken
from archdsl.spec.numbers import Count, Duration

_Word = Annotated[str, Field(min_length=1, max_length=500)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=100)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class _Bounds(_Model):
    @model_validator(mode="after")
    def _is_a_range(self) -> Any:
        low, high = getattr(self, "min", None), getattr(self, "max", None)
        if low is None and high is None:
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


class Constraints(_Model):
    """What every network of the front must keep to."""

    params: CountBounds | None = None
    macs: CountBounds | None = None
    latency: DurationBounds | None = None
    accuracy: ShareBounds | None = None


class Train(_Model):
    """Accuracy by real training. `data` and `recipe` are a name, or a mapping of its settings."""

    data: _Word | dict[str, Any]
    recipe: _Word | dict[str, Any] = "quick"
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    seeds: int = Field(default=1, ge=1, le=1000)
    threads: int | None = Field(default=None, ge=1, le=1024)


class AccuracyObjective(_Model):
    """How good a network is, and how that is found out."""

    train: Train


class LatencyObjective(_Model):
    """How long one batch takes, on which target."""

    runtime: _Name = "onnxruntime"
    device: _Word = "cpu"
    precision: _Name = "fp32"
    batch: int = Field(default=1, ge=1, le=65536)
    threads: int = Field(default=1, ge=1, le=1024)


class CountObjective(_Model):
    """A count has nothing to set."""


def _targets(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


class Objectives(_Model):
    """What a study makes better: accuracy up, everything else down."""

    accuracy: AccuracyObjective | None = None
    latency: Annotated[tuple[LatencyObjective, ...], BeforeValidator(_targets), Field(min_length=1)] | None = None
    params: CountObjective | None = None
    macs: CountObjective | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives that are set: `accuracy`, `latency`, `params`, `macs`."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


class Search(_Model):
    """How the study goes: a sampler's name, how many trials, the seed, and designs to try first."""

    sampler: _Name = "auto"
    trials: int = Field(default=100, ge=1, le=10_000_000)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    start: tuple[_Word, ...] = Field(default=(), max_length=60)
