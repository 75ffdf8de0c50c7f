"""What a latency belongs to: a runtime on a device, at a precision, a batch size and a number of threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from archdsl.backends.trt.library import gpu_driver
from archdsl.errors import Place, Problem, SpecError, at_argument
from archdsl.latency.clock.gpu_wait import chosen_wait
from archdsl.latency.clock.runs import METHOD
from archdsl.latency.runtimes import RUNTIMES, runtime

MOST_BATCH = 65536
MOST_THREADS = 1024

Locate = Callable[[str], Place]
"""From a field's name ('' for the whole target) to where the user wrote it."""


@dataclass(frozen=True)
class Target:
    """runtime: a name in `RUNTIMES`; device: `cpu` or `cuda`; precision: fp32, fp16, bf16; batch: images at once;
    threads: of the runtime.

    Errors: SpecError when a value is not one the runtime knows; each problem tells what it does know.
    """

    runtime: str = "onnxruntime"
    device: str = "cpu"
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        problems = _problems(dataclasses.asdict(self), lambda field: _argument(field, getattr(self, field)))
        if problems:
            raise SpecError(problems)

    @classmethod
    def parse(cls, value: object, locate: Locate | None = None) -> Target:
        """A target from a runtime's name (`onnxruntime`) or a mapping with any of the fields.

        Errors: SpecError with every problem of the mapping, placed by `locate`.
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

    def device_name(self) -> str:
        """The device as its maker calls it."""
        return runtime(self.runtime).device_name(self.device)

    def fingerprint(self) -> str:
        """Everything that decides a latency but the network: part of the cache key, and stable across processes.

        Errors: MeasureError (`runtime-missing`) when the runtime is not installed, since then it has no version.
        """
        return " | ".join(
            [
                f"{self.runtime} {runtime(self.runtime).version()}",
                f"{self.device} {self.device_name()}",
                self.precision,
                f"batch {self.batch}",
                f"threads {self.threads}",
                *self._on_gpu(),
                f"archdsl {_own_version()}",
                f"method {METHOD}",
            ]
        )

    def _on_gpu(self) -> list[str]:
        """What else decides a latency on a GPU: the driver, where it can be told, and how the CPU waits for it."""
        if self.device != "cuda":
            return []
        driver, wait = gpu_driver(), chosen_wait()
        return [*([f"driver {driver}"] if driver else []), *([f"wait {wait}"] if wait != "auto" else [])]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        threads = "" if self.threads == 1 else f", {self.threads} threads"
        return f"{self.runtime} on {self.device}, {self.precision}, batch {self.batch}{threads}"


FIELDS = tuple(field.name for field in dataclasses.fields(Target))


@cache
def _own_version() -> str:
    try:
        return version("archdsl")
    except PackageNotFoundError:
        return "unreleased"


def _argument(field: str, value: object) -> Place:
    return at_argument("target", f"{field}={value}" if field else str(value))


def _problems(fields: Mapping[Any, object], locate: Locate) -> list[Problem]:
    """All that is wrong with a target's fields."""
    found = [
        Problem(
            locate(str(key)),
            "unknown-key",
            f"a target has the fields {', '.join(FIELDS)}, got `{key}`",
            hint=_meant(str(key), FIELDS),
        )
        for key in fields
        if key not in FIELDS
    ]
    for field, most in (("batch", MOST_BATCH), ("threads", MOST_THREADS)):
        value = fields.get(field, 1)
        if not isinstance(value, int) or isinstance(value, bool):
            message = f"{field} is a whole number, got {value!r}"
            found.append(Problem(locate(field), "wrong-type", message, hint=f"write `{field}: 1`"))
        elif not 1 <= value <= most:
            message = f"{field} is between 1 and {most}, got {value}"
            found.append(Problem(locate(field), "out-of-range", message, hint=f"write `{field}: 1`"))
    name = fields.get("runtime", Target.runtime)
    if not isinstance(name, str) or name not in RUNTIMES:
        message = f"a runtime is one of {', '.join(sorted(RUNTIMES))}, got {name!r}"
        found.append(Problem(locate("runtime"), "unknown-name", message, hint=_meant(str(name), tuple(RUNTIMES))))
        return found
    chosen = runtime(name)
    device = fields.get("device", _default_device(fields))
    choices = [("device", device, "", chosen.devices)]
    if device in chosen.devices:
        on = f" on {device}"
        choices.append(("precision", fields.get("precision", Target.precision), on, chosen.precisions[str(device)]))
    for field, value, on, known in choices:
        if value not in known:
            message = f"{name} knows the {field}s {', '.join(known)}{on}, got {value!r}"
            found.append(Problem(locate(field), "unknown-name", message, hint=_meant(str(value), known)))
    return found


def _default_device(fields: Mapping[Any, object]) -> str:
    """The first device of a target's runtime, which is one of the table."""
    return runtime(str(fields.get("runtime", Target.runtime))).devices[0]


def _meant(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"use one of: {', '.join(sorted(known))}"
