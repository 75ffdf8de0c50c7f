"""Trying the options of a space one by one, so that a wrong one is found when the space is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from archdsl.errors import SpecError
from archdsl.spec.explain import SUGGESTED, Complaints
from archdsl.spec.knobs import Knob, Option
from archdsl.spec.node import Node
from archdsl.spec.read import read_spec

_ABOUT_ONE_OPTION = ("unknown-key", "wrong-type", "wrong-value", "out-of-range", "unknown-name", "missing-key", "limit")
"""Rules that an option breaks by itself. Others (lengths, parts that do not fit) depend on what else is picked."""


_MOST_OTHERS = 16
"""How many options of a choice further up are tried for one that is wrong on the base itself."""


def check_options(knobs: Sequence[Knob], base: Node, complaints: Complaints, own_files: Sequence[str]) -> None:
    """Try every option by itself on the base; what is wrong with it is said at the option, or at its path."""
    for knob in knobs:
        above = [other for other in knobs if _is_above(other, knob)]
        others = (other.set(base, index) for other in above for index in range(len(other.choices)))
        _check_knob(knob, [base, *islice(others, _MOST_OTHERS)], complaints, own_files)


def _check_knob(knob: Knob, trees: Sequence[Node], complaints: Complaints, own_files: Sequence[str]) -> None:
    """An option is wrong when it is wrong on every one of the trees, which differ in what else is picked."""
    for index, option in enumerate(knob.choices):
        first: SpecError | None = None
        for tree in trees if len(complaints) < SUGGESTED else trees[:1]:
            try:
                changed = knob.set(tree, index)
                read_spec(changed)
            except SpecError as error:
                first = first or error
                continue
            for inner in option.knobs:
                _check_knob(inner, [changed], complaints, own_files)
            break
        else:
            if first is not None:
                _report(first, knob, option, complaints, own_files)
        if complaints.full:
            return


def _report(error: SpecError, knob: Knob, option: Option, complaints: Complaints, own_files: Sequence[str]) -> None:
    about = [problem for problem in error.problems if problem.rule in _ABOUT_ONE_OPTION]
    here = [problem for problem in about if problem.place.file in own_files]
    for problem in here:
        complaints.put(problem)
    if about and not here:
        problem = about[0]
        message = f"with this option the spec is wrong: {problem.message} (at {problem.place})"
        complaints.add(option.node.mark, problem.rule, message, problem.hint, tuple(knob.path.split(".")))


def _is_above(upper: Knob, lower: Knob) -> bool:
    """Whether one knob sets something that holds what another sets."""
    tops = {tuple(step.name for step in target) for target in upper.targets}
    return any(
        tuple(step.name for step in target[:cut]) in tops for target in lower.targets for cut in range(1, len(target))
    )
