"""A study that costs nothing: networks are real, what they are worth is computed from their hash and counts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archdsl.compiler import cost, identity
from archdsl.language import Space, Spec, loads_space
from archdsl.latency import Timing
from archdsl.study.campaign import Campaign
from archdsl.study.candidate import Assessor
from archdsl.study.config import StudyConfig
from archdsl.study.objectives import chosen
from archdsl.study.storage.opening import open_storage
from archdsl.study.storage.process_identity import this_process
from archdsl.training import Accuracy

SPACE = """
name: fake
base: micro_swin
choices:
  stages.0.window: [2, 4, 8]
  stages.1.window: [2, 4]
  stages.*.shift: {same: [true, false]}
  stages.0.depth: {range: [1, 3]}
  defaults: [{norm: layer, act: gelu}, {norm: batch, act: relu}]
objectives:
  accuracy: {train: {data: synthetic}}
  latency: {runtime: "null"}
search: {trials: 10, start: [micro_swin, micro_swin_free]}
"""


def fake_space(text: str = SPACE) -> Space:
    return loads_space(text)


def fake_timing(median_ms: float = 1.0, plus_minus: float = 0.0, **changes: Any) -> Timing:
    fields: dict[str, Any] = {
        "median_ms": median_ms,
        "ci_low_ms": median_ms - plus_minus,
        "ci_high_ms": median_ms + plus_minus,
        "p5_ms": median_ms,
        "p95_ms": median_ms,
        "p99_ms": median_ms,
        "runs": 1,
        "warmup": 0,
        "runtime": "null",
        "runtime_version": "1",
        "device": "cpu",
        "device_name": "no device",
        "precision": "fp32",
        "batch": 1,
        "threads": 1,
        "environment": {},
        "cores": None,
        "clock_state": "unlocked",
        "cpu_wall_ratio": 1.0,
        "load_average": 0.0,
        "busy_neighbours": None,
        "contended": False,
        "contention": None,
        "drift": None,
        "outliers": 0,
        "graph_hash": "0",
        "date": "2026-01-01T00:00:00Z",
    }
    return Timing(**{**fields, **changes})


def fake_accuracy(mean: float = 0.5, *, num_val: int = 10_000, **changes: Any) -> Accuracy:
    fields: dict[str, Any] = {
        "mean": mean,
        "sd": 0.0,
        "values": (mean, mean),
        "seeds": (0, 1),
        "num_val": num_val,
        "num_val_independent": num_val,
        "epochs": 1,
        "seconds": 0.0,
        "reused": 0,
        "data": "fake",
        "recipe": "fake",
    }
    return Accuracy(**{**fields, **changes})


def fake_latency(spec: Spec) -> Timing:
    """A millisecond for each million MACs."""
    return fake_timing(cost(spec).macs / 1e6)


class FakeTraining:
    """An evaluator. seen: the hashes that were paid for; hook: called with each spec first"""

    def __init__(self, hook: Callable[[Spec], object] = lambda spec: None):
        self.seen: list[str] = []
        self.hook = hook

    def __call__(self, spec: Spec, *, seed: int) -> Accuracy:
        self.seen.append(identity(spec))
        self.hook(spec)
        return fake_accuracy(random.Random(identity(spec)).random())


def fake_campaign(
    folder: Path | str,
    *,
    training: FakeTraining | None = None,
    latency: Callable[[Spec], Any] = fake_latency,
    trials: int = 10,
    seed: int = 0,
    sampler: str = "tpe",
    space: Space | None = None,
    storage: str | None = None,
    assessor: Assessor | None = None,
    **more: Any,
) -> Campaign:
    space = space or fake_space()
    objectives = more.pop("objectives", None) or chosen(["latency"], ["accuracy", "latency"])
    time_limit_s, fixed = more.pop("time_limit_s", None), more.pop("fixed", None)
    patience = more.pop("patience", None)
    config = StudyConfig(
        "fake", objectives, trials, seed, sampler, time_limit_s=time_limit_s, fixed=fixed, patience=patience
    )
    bounds = {name: getattr(space.constraints, name) for name in type(space.constraints).model_fields}
    assessor = assessor or Assessor(
        space,
        objectives,
        constraints={name: bound for name, bound in bounds.items() if bound is not None},
        latency=latency,
        accuracy=training or FakeTraining(),
        seed=seed,
    )
    return Campaign(space, config, assessor, open_storage(storage or Path(folder) / "study.journal"), **more)


def long_ago() -> str:
    """How `owner` says of a process that it started with this machine."""
    return f"{str(this_process()['started']).partition(':')[0]}:0"
