"""The objectives of a study, by name, and which values are valid results.

What is measured belongs to a target. A study with one target calls its objectives `latency`, `throughput`,
`peak_memory` and `energy`; one with several adds the target's label: `latency@openvino`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Literal

from archdsl.errors import Problem, StudyError, at_argument
from archdsl.language.space.objectives import MEASURED
from archdsl.language.text.words import joined
from archdsl.suggestions import did_you_mean

LARGEST = 1e300
"""Larger values overflow where samplers square or add them."""
MOST_OBJECTIVES = 4
"""With more, nearly every network is on the front."""


@dataclass(frozen=True)
class Objective:
    """One axis of the front.

    unit: of its values, '' for a plain number; least, most: where its values can lie
    name: in a study of several targets with the target's label behind an `@`
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str = ""
    least: float = 0.0
    most: float = inf

    @property
    def sign(self) -> int:
        """+1 where less is better, -1 where more is."""
        return 1 if self.direction == "minimize" else -1

    @property
    def kind(self) -> str:
        """The name before an `@`."""
        return self.name.partition("@")[0]

    @property
    def target(self) -> str:
        """The name behind an `@`."""
        return self.name.partition("@")[2]

    @property
    def title(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("accuracy", "maximize", most=1.0),
        Objective("latency", "minimize", "ms"),
        Objective("throughput", "maximize", "images/s"),
        Objective("peak_memory", "minimize", "bytes"),
        Objective("energy", "minimize", "mJ/image"),
        Objective("latency_estimate", "minimize", "ms"),
        Objective("params", "minimize"),
        Objective("macs", "minimize"),
    )
}


def named(kind: str, target: str) -> str:
    """The name of the measured `kind` on a target; the target is '' in a study that has only one."""
    return f"{kind}@{target}" if target else kind


def objective_named(name: str) -> Objective:
    """The objective called `name`. Raises KeyError for a kind that there is not."""
    return replace(OBJECTIVES[name.partition("@")[0]], name=name)


def chosen(asked: Sequence[str], offered: Sequence[str], targets: Sequence[str] = ()) -> tuple[Objective, ...]:
    """The objectives of a study, in the order of its values.

    asked: names from the command line; accuracy is added in front, unless the space does not offer it, or an estimate
        is asked for, which needs neither data nor a GPU (then accuracy must be asked for as well). A kind that is
        measured, such as `latency`, stands for all of it: on every target the space offers it on, or on every target
    offered: what the space file describes; all of it when nothing is asked
    targets: labels of the study's targets where there are several
    Raises: StudyError for an unknown name, for an accuracy whose evaluator the space does not name, or for too many
    """
    known = list(dict.fromkeys([*OBJECTIVES, *offered, *(named(kind, t) for kind in MEASURED for t in targets)]))
    problems = [_unknown(name, known) for name in asked if name not in known]
    if "accuracy" in asked and "accuracy" not in offered:
        message = "the space does not say how accuracy is found out"
        hint = "add `accuracy: {train: {data: synthetic}}` to its objectives"
        problems.append(Problem(at_argument("--objective", "accuracy"), "missing-key", message, hint))
    if problems:
        raise StudyError(problems)
    names = list(dict.fromkeys(one for name in asked for one in _meant(name, offered, targets)) or offered)
    if "accuracy" in offered and ("latency_estimate" not in asked or "accuracy" in asked):
        names = ["accuracy", *(name for name in names if name != "accuracy")]
    if not names:
        message = "a study needs an objective"
        hint = f"add --objective with one of {', '.join(OBJECTIVES)}"
        raise StudyError.at("--objective", "", "missing-key", message, hint)
    if len(names) > MOST_OBJECTIVES:
        message = f"a study has at most {MOST_OBJECTIVES} objectives, but these are {len(names)}: {', '.join(names)}"
        hint = "choose some with --objective; what is left out can still have a constraint"
        raise StudyError.at("--objective", " ".join(names), "limit", message, hint)
    return tuple(objective_named(name) for name in names)


def _meant(name: str, offered: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The objectives that a name from the command line stands for."""
    if name in offered or name not in MEASURED:
        return [name]
    here = [other for other in offered if other.partition("@")[0] == name]
    return here or [named(name, target) for target in targets] or [name]


class BadValues(Exception):
    """Values that must not be stored in the study; the text gives the reason."""


def checked(values: object, objectives: Sequence[Objective]) -> list[float]:
    """`values` as floats, one for each objective.

    Optuna accepts infinity as a result, and fails a trial with NaN or a wrong number of values without a message.

    Raises: BadValues
    """
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise BadValues(f"the result is {_shown(values)}, not a list of {len(objectives)} numbers")
    if len(values) != len(objectives):
        raise BadValues(f"{len(values)} values came for {len(objectives)} objectives")
    return [_checked(value, objective) for value, objective in zip(values, objectives, strict=True)]


def _checked(value: object, objective: Objective) -> float:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise BadValues(f"{objective.name} is {_shown(value)}, not a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadValues(f"{objective.name} is {_shown(value)}, not a number") from None
    if not isfinite(number):
        raise BadValues(f"{objective.name} is {number}")
    if abs(number) > LARGEST:
        raise BadValues(f"{objective.name} is {number:g}, beyond ±{LARGEST:g}")
    return number


def _shown(value: object) -> str:
    try:
        return repr(value)[:60]
    except Exception:
        return f"a {type(value).__name__}"


def _unknown(name: str, known: Sequence[str]) -> Problem:
    hint = joined(did_you_mean(name, known), f"Objectives: {', '.join(known)}.")
    return Problem(at_argument("--objective", name), "unknown-name", f"there is no objective `{name}`", hint)
