"""The targets that a command's words name, and what is said of those that do not work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from archdsl.backends.precision import PRECISIONS
from archdsl.cli.output import words
from archdsl.errors import ArchError, Problem, SpecError, at_argument
from archdsl.latency import RUNTIMES, Target
from archdsl.latency.runtimes import runtime


def targets_of(
    runtimes: str, device: str | None, precisions: str, batches: Sequence[int], threads: int
) -> tuple[list[Target], list[dict[str, Any]]]:
    """The targets of the matrix that work here, and what was left out of it and why.

    Errors: ArchError for a word that no runtime knows, or when nothing is left
    """
    asked = [runtime_and_device(word, device) for word in words("--on", runtimes)]
    named = words("--precision", precisions, tuple(PRECISIONS))
    found: list[Target] = []
    skipped: list[dict[str, Any]] = []
    errors: list[ArchError] = []
    for (name, where), precision, batch in product(asked, named, batches):
        fields = {"runtime": name, **where, "precision": precision, "batch": batch, "threads": threads}
        try:
            target = Target.parse(fields)
            target.fingerprint()  # what is missing is told before anything is timed
            found.append(target)
        except ArchError as error:
            if error.problems[0].rule in ("out-of-range", "wrong-type"):
                raise
            errors.append(error)
            skipped.append({"target": fields, **why(error)})
    if not found:
        raise together(errors)
    return list(dict.fromkeys(found)), skipped


def runtime_and_device(word: str, device: str | None) -> tuple[str, dict[str, str]]:
    """`tensorrt:cuda` -> the runtime's name and the fields of its device. Errors: SpecError for unknown names"""
    name, colon, own = word.partition(":")
    if name not in RUNTIMES:
        Target.parse({"runtime": name})  # says it
    where = own if colon else device
    if where is None:
        return name, {}
    known = sorted({known for each in RUNTIMES for known in runtime(each).devices})
    if where not in known:
        message = f"a device is one of {', '.join(known)}, but got {where!r}"
        raise SpecError(Problem(at_argument("--on" if colon else "--device", word), "unknown-name", message))
    return name, {"device": where}


def why(error: ArchError) -> dict[str, Any]:
    """What `--json` says about a target or network that has no result."""
    problem = error.problems[0]
    return {"reason": problem.rule, "message": problem.message, "hint": problem.hint}


def together(errors: Sequence[ArchError]) -> ArchError:
    """Several errors as one, each problem once; its exit code is the first one's."""
    return type(errors[0])(list(dict.fromkeys(problem for error in errors for problem in error.problems)))


def skipped_line(left: dict[str, Any]) -> str:
    """One of `targets_of` that were left out, as a line below the table."""
    fields = left["target"]
    where = f" on {fields['device']}" if "device" in fields else ""
    target = f"{fields['runtime']}{where}, {fields['precision']}, batch {fields['batch']}"
    return f"skipped: {target}: {left['message']} [{left['reason']}]"
