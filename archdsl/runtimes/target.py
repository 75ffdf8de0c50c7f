"""What a latency belongs to: a runtime on a device, at a precision, a batch size and a number of threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from archdsl.backends.trt.gpus import gpu_problem
from archdsl.backends.trt.library import gpu_driver
from archdsl.errors import Place, Problem, SpecError, at_argument
from archdsl.failures import failed
from archdsl.json_fields import JsonFields
from archdsl.runtimes.protocol import RunConfig, Runtime
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.suggestions import did_you_mean
from archdsl.telemetry.gpu_wait import chosen_wait

METHOD = 2
"""The measuring method's number: raise it when a change to how times are taken makes old timings incomparable."""
METHOD_KEY = f"archdsl 0.1.0 | method {METHOD}"
"""The method's part of a timing's key. `archdsl 0.1.0` is where its numbers begin, not the release that is installed:
a release that measures as before keeps its users' timings."""

MOST_BATCH = 65536
MOST_THREADS = 1024

Locate = Callable[[str], Place]
"""From a field's name ('' for the whole target) to where the user wrote it."""


@dataclass(frozen=True)
class Target(JsonFields):
    """Where and how a network runs: what its latency belongs to.

    runtime: a name in `RUNTIMES`; device: `cpu` or `cuda`; precision: fp32, fp16 or bf16; batch: images at once
    threads: of the runtime
    gpu: another GPU than this machine's, by compute capability or name (`backends.trt.gpus`), for a runtime that
        compiles ahead of time: the engine can be read and its latency estimated, but it is not run

    Raises:  SpecError when the runtime does not know a value; each problem lists the values that it knows
    Example:
        >>> str(Target("null", batch=8, threads=2))
        'null on cpu, fp32, batch 8, 2 threads'
        >>> Target("nul")
        Traceback (most recent call last):
        archdsl.errors.SpecError: ...
    """

    runtime: str = "onnxruntime"
    device: str = "cpu"
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1
    gpu: str | None = None

    def __post_init__(self) -> None:
        problems = _problems(dataclasses.asdict(self), lambda field: _argument(field, getattr(self, field)))
        if problems:
            raise SpecError(problems)

    @classmethod
    def parse(cls, value: object, locate: Locate | None = None) -> Target:
        """Read a target as users write it. A field that is missing has its default, the device the runtime's first.

        Args:   value: a runtime's name, or a mapping with any of the fields; locate: where each field was written
        Raises: SpecError with every problem, placed by `locate`
        Example:
            >>> Target.parse({"runtime": "null", "batch": 4}).batch
            4
        """
        if isinstance(value, Target):
            return value
        fields = {"runtime": value} if isinstance(value, str) else value
        locate = locate or (lambda field: _argument(field, fields.get(field) if isinstance(fields, Mapping) else value))
        if not isinstance(fields, Mapping):
            message = f"a target is a runtime's name or a mapping, got {type(value).__name__}"
            raise SpecError(Problem(locate(""), "wrong-type", message, hint="write `runtime: onnxruntime`"))
        problems = _problems(fields, locate)
        if problems:
            raise SpecError(problems)
        given = {str(key): field for key, field in fields.items()}
        return cls(**{"device": _default_device(given), **given})

    @property
    def is_analytic(self) -> bool:
        """Whether the latency is computed from counts, not measured."""
        return runtime(self.runtime).analytic

    @property
    def config(self) -> RunConfig:
        """What the runtime's adapter needs of it."""
        return RunConfig(self.device, self.precision, self.batch, self.threads)

    def as_json(self) -> dict[str, Any]:
        """The fields by name; `gpu` where one is named."""
        return {name: value for name, value in super().as_json().items() if name != "gpu" or value is not None}

    def __str__(self) -> str:
        threads = "" if self.threads == 1 else f", {self.threads} threads"
        where = f"for {self.gpu}" if self.gpu else f"on {self.device}"
        return f"{self.runtime} {where}, {self.precision}, batch {self.batch}{threads}"


FIELDS = tuple(field.name for field in dataclasses.fields(Target))


@dataclass(frozen=True)
class ResolvedTarget:
    """A target on this machine: looked up once by `resolve`, then handed to everything that measures.

    device_name: the device as its maker calls it
    fingerprint: everything that decides a latency but the network: a part of the timing's key, stable across processes

    Example:
        >>> on = resolve(Target("null", batch=8))
        >>> on.target.batch, on.device_name
        (8, 'no device')
    """

    target: Target
    runtime: Runtime
    device_name: str
    fingerprint: str


def resolve(target: Target | ResolvedTarget) -> ResolvedTarget:
    """Look a target's runtime and device up on this machine.

    Args:    target: one that is resolved already is returned as it is
    Raises:  MeasureError (`runtime-missing`) when the runtime is not installed or the machine lacks the device;
             ArchError when `ARCHDSL_GPU_WAIT` is set to an unknown word
    Example:
        >>> resolve(Target("null")).fingerprint
        'null 1 | cpu no device | fp32 | batch 1 | threads 1 | archdsl 0.1.0 | method 2'
    """
    if isinstance(target, ResolvedTarget):
        return target
    chosen = runtime(target.runtime)
    if target.gpu is not None:
        message = f"{target.runtime} compiles for {target.gpu} ahead of time, and what it made is not run here"
        hint = f"archdsl profile … --on {target.runtime}:{target.gpu} reads the engine and estimates its latency (in a "
        hint += "search: latency_estimate)"
        raise failed("runtime-missing", message, where=target.runtime, hint=f"{hint}; on a {target.gpu} leave it out")
    version, device_name = chosen.version(), chosen.device_name(target.device)
    parts = [
        f"{target.runtime} {version}",
        f"{target.device} {device_name}",
        target.precision,
        f"batch {target.batch}",
        f"threads {target.threads}",
        *gpu_parts(target.device),
        METHOD_KEY,
    ]
    return ResolvedTarget(target, chosen, device_name, " | ".join(parts))


def gpu_parts(device: str) -> list[str]:
    """What else decides a latency on a GPU: the driver, where it can be read, and how the CPU waits for it."""
    if device != "cuda":
        return []
    driver, wait = gpu_driver(), chosen_wait()
    return [*([f"driver {driver}"] if driver else []), *([f"wait {wait}"] if wait != "auto" else [])]


def _argument(field: str, value: object) -> Place:
    return at_argument("target", f"{field}={value}" if field else str(value))


def _problems(fields: Mapping[Any, object], locate: Locate) -> list[Problem]:
    """All that is wrong with a target's fields."""
    found: list[Problem] = []

    def add(field: str, rule: str, message: str, hint: str) -> None:
        found.append(Problem(locate(field), rule, message, hint))

    for key in map(str, fields):
        if key not in FIELDS:
            message = f"a target has the fields {', '.join(FIELDS)}, got `{key}`"
            add(key, "unknown-key", message, _meant(key, FIELDS))
    for field, most in (("batch", MOST_BATCH), ("threads", MOST_THREADS)):
        value = fields.get(field, 1)
        if not isinstance(value, int) or isinstance(value, bool):
            add(field, "wrong-type", f"{field} is a whole number, got {value!r}", f"write `{field}: 1`")
        elif not 1 <= value <= most:
            add(field, "out-of-range", f"{field} is between 1 and {most}, got {value}", f"write `{field}: 1`")
    name = fields.get("runtime", Target.runtime)
    if not isinstance(name, str) or name not in RUNTIMES:
        message = f"a runtime is one of {', '.join(sorted(RUNTIMES))}, got {name!r}"
        add("runtime", "unknown-name", message, _meant(str(name), tuple(RUNTIMES)))
        return found
    chosen = runtime(name)
    device, precision = fields.get("device", _default_device(fields)), fields.get("precision", Target.precision)
    on_device = chosen.precisions.get(str(device))
    if on_device is None:
        message = f"{name} knows the devices {', '.join(chosen.devices)}, got {device!r}"
        add("device", "unknown-name", message, _meant(str(device), chosen.devices))
    if (gpu := fields.get("gpu")) is not None:
        if not chosen.ahead_of_time:
            ahead = ", ".join(each for each in RUNTIMES if runtime(each).ahead_of_time)
            message = f"{name} runs on the GPU of this machine; only {ahead} compiles for a GPU by its name"
            add("gpu", "wrong-value", message, "leave gpu out")
        elif problem := gpu_problem(str(gpu), str(precision)):
            add("gpu", *problem)
    if on_device is not None and gpu is not None:
        on_device = (*on_device, *chosen.ahead_precisions)
    if on_device is not None and precision not in on_device:
        message = f"{name} knows the precisions {', '.join(on_device)} on {device}, got {precision!r}"
        add("precision", "unknown-name", message, _meant(str(precision), on_device))
    return found


def _default_device(fields: Mapping[Any, object]) -> str:
    """The first device of a target's runtime, which is one of the table."""
    return runtime(str(fields.get("runtime", Target.runtime))).devices[0]


def _meant(word: str, known: tuple[str, ...]) -> str:
    return did_you_mean(word, known) or f"use one of: {', '.join(sorted(known))}"
