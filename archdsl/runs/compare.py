"""`compare`: the fronts of several searches beside each other, where their values can be compared."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.errors import Problem, StudyError, at_argument
from archdsl.language.space.objectives import MEASURED
from archdsl.runs.reading import OpenedSearch, open_search
from archdsl.study.config import FINGERPRINT
from archdsl.study.front.joint import JointFront, joint_front
from archdsl.study.storage.urls import masked
from archdsl.study.view import StudyView

_NOTHING = "(nothing)"
_PIECE = " | "
"""Between the parts of a target's fingerprint."""


@dataclass(frozen=True)
class ComparedSearch:
    """label: the study's name, or where it is kept if two have one name; num_evaluated: networks"""

    label: str
    opened: OpenedSearch

    @property
    def num_evaluated(self) -> int:
        """Networks that were measured or trained."""
        return len(self.opened.view.evaluated)


@dataclass(frozen=True)
class FrontComparison:
    """Searches beside each other.

    differing: conditions that keep values from being compared, each with its value for each search, in their order
    noted: conditions that differ and do not
    joint: the joint front; None where conditions differ
    """

    searches: tuple[ComparedSearch, ...]
    differing: Mapping[str, tuple[str, ...]]
    noted: Mapping[str, tuple[str, ...]]
    joint: JointFront | None

    def as_json(self) -> dict[str, Any]:
        """What `archdsl compare --json` prints."""
        labels = [search.label for search in self.searches]
        return {
            "searches": [self._search(index) for index in range(len(labels))],
            "differing": {name: dict(zip(labels, values, strict=True)) for name, values in self.differing.items()},
            "noted": {name: dict(zip(labels, values, strict=True)) for name, values in self.noted.items()},
            "joint_front": self.joint.num_members if self.joint is not None else None,
        }

    def _search(self, index: int) -> dict[str, Any]:
        search, joint = self.searches[index], self.joint
        rows = [row.as_json() for row in search.opened.rows]
        if joint is not None:
            pairs = zip(rows, joint.standings[index], strict=True)
            rows = [{**row, "on_joint_front": standing} for row, standing in pairs]
        return {
            "label": search.label,
            "study": search.opened.view.name,
            "storage": search.opened.storage,
            "objectives": [objective.name for objective in search.opened.view.objectives],
            "networks_evaluated": search.num_evaluated,
            "hypervolume_share": joint.shares[index] if joint is not None else None,
            "front": rows,
        }


def compare(
    runs: Sequence[str | os.PathLike[str]], studies: Sequence[str] = (), *, separate: bool = False
) -> FrontComparison:
    """The fronts of several searches. The studies are only read.

    Args:
        runs: folders, journals or URLs of databases
        studies: names of studies, each of which is taken from every run; none where every run keeps one
        separate: do not refuse searches whose values cannot be compared
    Raises: StudyError (`not-comparable`) with each condition that differs, unless `separate`; `usage` for fewer than
        two searches; as `open_search`
    """
    opened = [open_search(run, study) for run in runs for study in (studies or (None,))]
    if len(opened) < 2:
        hint = "name another RUN, or several studies of this one with --study"
        given = masked(" ".join(os.fspath(run) for run in runs))
        raise StudyError.at("RUN", given, "usage", "there is only one search here", hint)
    searches = tuple(ComparedSearch(label, one) for label, one in zip(_labels(opened), opened, strict=True))
    views = [one.view for one in opened]
    differing = _differing([conditions_of(view) for view in views])
    if differing and not separate:
        raise StudyError(_problems(searches, differing))
    joint = None if differing else joint_front([one.front for one in opened])
    return FrontComparison(searches, differing, _differing([_circumstances_of(view) for view in views]), joint)


def conditions_of(view: StudyView) -> dict[str, str]:
    """What two searches must share for their values to be compared, by name: the objectives, where latencies are taken,
    and what accuracies are of."""
    found: dict[str, Any] = {"objectives": ", ".join(objective.name for objective in view.objectives)}
    kinds = {objective.kind for objective in view.objectives}
    if kinds & set(MEASURED):
        found["latency target"] = view.plan.get("latency")
    if "latency_estimate" in kinds:
        found["latency_estimate"] = view.plan.get("latency_estimate")
    if "accuracy" in kinds:
        accuracy = view.plan.get("accuracy")
        accuracy = accuracy if isinstance(accuracy, Mapping) else {}
        found["data"] = _data(accuracy.get("data"), accuracy.get(FINGERPRINT))
        found["recipe"], found["first weights"] = accuracy.get("recipe"), accuracy.get("weights")
    return dict(_flat(found))


def _circumstances_of(view: StudyView) -> dict[str, str]:
    """What may differ between searches, and is reported."""
    accuracy = view.plan.get("accuracy")
    seeds = accuracy.get("seeds") if isinstance(accuracy, Mapping) else None
    job = view.job or {}
    return dict(_flat({"constraints": view.plan.get("constraints"), "seeds": seeds, "versions": job.get("versions")}))


def _data(written: Any, fingerprint: Any) -> Any:
    """The data of a search. Where they lie, and by how many processes they are read, is no part of it if their content
    is known."""
    if fingerprint is None:
        return written
    fields = {"type": written.partition(":")[0]} if isinstance(written, str) else dict(written or {})
    return {**{k: v for k, v in fields.items() if k not in ("path", "workers")}, FINGERPRINT: fingerprint}


def _flat(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings, by their dotted path; what is None is left out."""
    for key, value in data.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, where)
        elif value is not None:
            yield where, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _differing(found: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """The conditions in which some differ: of a fingerprint, the parts that do."""
    names = dict.fromkeys(name for conditions in found for name in conditions)
    values = {name: [conditions.get(name, _NOTHING) for conditions in found] for name in names}
    return {name: _telling(each) for name, each in values.items() if len(set(each)) > 1}


def _telling(values: Sequence[str]) -> tuple[str, ...]:
    pieces = [value.split(_PIECE) for value in values]
    common = set(pieces[0]).intersection(*pieces[1:])
    return tuple(_PIECE.join(piece for piece in each if piece not in common) or _NOTHING for each in pieces)


def _problems(searches: Sequence[ComparedSearch], differing: Mapping[str, Sequence[str]]) -> list[Problem]:
    hint = "--separate shows each front by itself, with its conditions"
    runs = " ".join(search.label for search in searches)
    found = []
    for name, values in differing.items():
        each = "; ".join(f"{search.label}: {value}" for search, value in zip(searches, values, strict=True))
        message = f"these searches cannot be compared, because `{name}` differs: {each}"
        found.append(Problem(at_argument("RUN", runs), "not-comparable", message, hint))
    return found


def _labels(opened: Sequence[OpenedSearch]) -> list[str]:
    """What each search is called: by its study, by its folder or storage if two studies have one name.

    Errors: StudyError (`conflict`) when one search is named twice
    """
    names = [one.view.name for one in opened]
    if len(set(names)) == len(names):
        return names
    places = [str(one.folder) if one.folder is not None else one.storage for one in opened]
    if len(set(places)) == len(places):
        return places
    found = [f"{name} in {place}" for name, place in zip(names, places, strict=True)]
    if twice := next((one for one in found if found.count(one) > 1), None):
        raise StudyError.at("RUN", twice, "conflict", f"{twice} is named twice", "name each search once")
    return found
