"""The targets that a command's words name, and what is said of those that do not work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from archdsl.backends.trt.gpus import gpu_problem
from archdsl.cli.output import say
from archdsl.errors import ArchError, SpecError
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.runtimes.target import ResolvedTarget, Target, resolve


def targets_of(
    runtimes: Sequence[str], device: str | None, precisions: Sequence[str], batches: Sequence[int], threads: int
) -> tuple[list[ResolvedTarget], list[dict[str, Any]]]:
    """The targets of the matrix that work here, and what was left out of it and why.

    Errors: ArchError for a word that no runtime knows, or when nothing is left
    """
    asked = [runtime_and_device(word, device) for word in runtimes]
    found: list[ResolvedTarget] = []
    skipped: list[dict[str, Any]] = []
    errors: list[ArchError] = []
    for (name, where), precision, batch in product(asked, precisions, batches):
        fields = {"runtime": name, **where, "precision": precision, "batch": batch, "threads": threads}
        try:
            found.append(resolve(Target.parse(fields)))  # what is missing is reported before anything is timed
        except ArchError as error:
            if error.problems[0].rule in ("out-of-range", "wrong-type"):
                raise
            errors.append(error)
            skipped.append({"target": fields, **why(error)})
    if not found:
        raise together(errors)
    return list(dict.fromkeys(found)), skipped


def target_of(word: str, device: str | None, **fields: object) -> Target:
    """The target of a word such as `tensorrt:cuda`. Errors: SpecError for unknown names, and as `Target.parse`"""
    name, where = runtime_and_device(word, device)
    return Target.parse({"runtime": name, **where, **fields})


def runtime_and_device(word: str, device: str | None) -> tuple[str, dict[str, str]]:
    """`tensorrt:cuda` -> the runtime's name and the fields of its device; `tensorrt-rtx:sm86` -> those of its GPU.

    Errors: SpecError for unknown names
    """
    name, colon, own = word.partition(":")
    if name not in RUNTIMES:
        Target.parse({"runtime": name})  # says it
    where = own if colon else device
    if where is None:
        return name, {}
    known = sorted({known for each in RUNTIMES for known in runtime(each).devices})
    if colon and own not in known and runtime(name).ahead_of_time:
        if problem := gpu_problem(own):
            raise SpecError.at("--on", word, *problem)
        return name, {"gpu": own}
    if where not in known:
        message = f"a device is one of {', '.join(known)}, but got {where!r}"
        ahead = [each for each in RUNTIMES if runtime(each).ahead_of_time]
        hint = f"engines for a GPU by its name: --on {ahead[0]}:{where}" if gpu_problem(where) is None else None
        raise SpecError.at("--on" if colon else "--device", word, "unknown-name", message, hint)
    return name, {"device": where}


def why(error: ArchError) -> dict[str, Any]:
    """What `--json` says about a target or network that has no result."""
    problem = error.problems[0]
    return {"reason": problem.rule, "message": problem.message, "hint": problem.hint}


def together(errors: Sequence[ArchError]) -> ArchError:
    """Several errors as one, each problem once; its exit code is the first one's."""
    return type(errors[0])(list(dict.fromkeys(problem for error in errors for problem in error.problems)))


def echo_missing(failed: Sequence[tuple[str, dict[str, Any]]], skipped: Sequence[dict[str, Any]]) -> None:
    """A line below the table for each that failed (what it was, and `why`), and each that `targets_of` left out."""
    for what, reason in failed:
        say(f"failed: {what}: {reason['message']} [{reason['reason']}]")
    for left in skipped:
        fields = left["target"]
        where = f" on {fields['device']}" if "device" in fields else ""
        target = f"{fields['runtime']}{where}, {fields['precision']}, batch {fields['batch']}"
        say(f"skipped: {target}: {left['message']} [{left['reason']}]")
