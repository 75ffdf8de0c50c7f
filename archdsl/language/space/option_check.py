"""Trying the options of a space one by one, so that a wrong one is found when the space is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from archdsl.errors import SpecError
from archdsl.language.architecture.read import KnownParts, check_tree
from archdsl.language.space.choices import Choice, Option
from archdsl.language.text.explain import SUGGESTED, Complaints
from archdsl.language.text.node import YamlNode

_ABOUT_ONE_OPTION = ("unknown-key", "wrong-type", "wrong-value", "out-of-range", "unknown-name", "missing-key", "limit")
"""Rules that an option breaks by itself. Others (lengths, parts that do not fit) depend on what else is picked."""


_MOST_OTHERS = 16
"""How many options of a choice further up are tried for one that is wrong on the base itself."""


def check_options(choices: Sequence[Choice], base: YamlNode, complaints: Complaints, own_files: Sequence[str]) -> None:
    """Try every option by itself on the base; what is wrong with it is said at the option, or at its path."""
    known = KnownParts()
    setters: dict[tuple[str, ...], list[Choice]] = {}
    for choice in choices:
        for top in dict.fromkeys(_names(choice)):
            setters.setdefault(top, []).append(choice)
    for choice in choices:
        above = _above(choice, setters)
        others = (other.set(base, index) for other in above for index in range(len(other.options)))
        _check_choice(choice, [base, *islice(others, _MOST_OTHERS)], complaints, own_files, known)


def _check_choice(
    choice: Choice, trees: Sequence[YamlNode], complaints: Complaints, own_files: Sequence[str], known: KnownParts
) -> None:
    """An option is wrong when it is wrong on every one of the trees, which differ in what else is picked."""
    for index, option in enumerate(choice.options):
        first: SpecError | None = None
        for tree in trees if len(complaints) < SUGGESTED else trees[:1]:
            try:
                changed = choice.set(tree, index)
                check_tree(changed, known)
            except SpecError as error:
                first = first or error
                continue
            for inner in option.choices:
                _check_choice(inner, [changed], complaints, own_files, known)
            break
        else:
            if first is not None:
                _report(first, choice, option, complaints, own_files)
        if complaints.full:
            return


def _report(error: SpecError, choice: Choice, option: Option, complaints: Complaints, own_files: Sequence[str]) -> None:
    about = [problem for problem in error.problems if problem.rule in _ABOUT_ONE_OPTION]
    here = [problem for problem in about if problem.place.file in own_files]
    for problem in here:
        complaints.put(problem)
    if about and not here:
        problem = about[0]
        message = f"with this option the spec is wrong: {problem.message} (at {problem.place})"
        complaints.add(option.node.mark, problem.rule, message, problem.hint, tuple(choice.path.split(".")))


def _above(choice: Choice, setters: Mapping[tuple[str, ...], Sequence[Choice]]) -> list[Choice]:
    """The choices that set something that holds what this one sets. setters: of each path"""
    prefixes = {names[:cut] for names in _names(choice) for cut in range(1, len(names))}
    found = {id(other): other for prefix in sorted(prefixes) for other in setters.get(prefix, ())}
    return list(found.values())


def _names(choice: Choice) -> list[tuple[str, ...]]:
    """The paths that a choice sets, wildcards expanded."""
    return [tuple(step.name for step in target) for target in choice.paths]
