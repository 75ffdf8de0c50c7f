"""Trainings that another search has finished, taken over into a new one: with the same data, recipe and seeds."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from archdsl.errors import StudyError
from archdsl.outside_text import printable
from archdsl.runs.folder import TRAININGS
from archdsl.study.config import FINGERPRINT, differences
from archdsl.study.record import Record
from archdsl.training.results import JsonLines

ORIGIN = "origin"
"""In a stored training: the folder of the search that it was taken from, where that is another one."""

_FIELD = re.compile(r"(\w+)=(.*?)(?= \w+=|$)")
_SIZE = re.compile(r" size=\d+x\d+")
_CONTENTS = ("files", "rows", "content")
"""Digests in the keys of data: together they are the fingerprint."""


@dataclass(frozen=True)
class Wanted:
    """What a training must have in common with those of a search.

    data, recipe: keys of the data (of whatever image size) and of the recipe
    seeds: of the search's trainings and of its confirmation
    start: key of the weights that trainings start from; '' for initial ones
    """

    data: str
    recipe: str
    seeds: range
    start: str = ""

    def difference(self, data: str, recipe: str, seed: int, start: str) -> list[str]:
        """The fields in which a training differs, each as `field: there -> here`."""
        return differences(
            {"accuracy": {**_data_fields(data), "recipe": _fields(recipe), "weights": start or None}},
            {"accuracy": {**_data_fields(self.data), "recipe": _fields(self.recipe), "weights": self.start or None}},
        ) or ([] if seed in self.seeds else [f"seed: {seed} -> {self.seeds[0]}"])


Trainings = Mapping[str, dict[str, Any]]
"""Finished trainings by key, as `JsonLines` keeps them."""


def fitting_trainings(runs: Sequence[str | os.PathLike[str]], wanted: Wanted) -> dict[str, Trainings]:
    """The finished trainings of other searches that fit, by the folder of the search.

    Args: runs: folders of searches; trainings that were set aside in them count, too
    Raises: StudyError when a folder holds no trainings, or none that fits
    """
    return {os.fspath(run): _fitting(os.fspath(run), wanted) for run in runs}


def take_over(found: Mapping[str, Trainings], into: Path) -> dict[str, int]:
    """Add trainings to those of a search, each with where it comes from.

    Args: found: as of `fitting_trainings`; into: the file of the search's trainings
    Returns: how many were added, by folder
    """
    mine, added = JsonLines(into), {}
    for run, trainings in found.items():
        new = {key: value for key, value in trainings.items() if mine.get(key) is None}
        for key, value in new.items():
            mine[key] = {ORIGIN: str(Path(run).absolute()), **value}
        added[run] = len(new)
    return added


def reused_by_origin(records: Sequence[Record]) -> dict[str, int]:
    """How many trainings the networks of a search have from elsewhere, by the folder of the search that did them."""
    trained = [record for record in records if record.accuracy is not None and record.duplicate_of is None]
    return dict(Counter(origin for record in trained if record.accuracy for origin in record.accuracy.origins))


def _fitting(run: str, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The trainings of a folder that fit, by key. Raises: StudyError"""
    there: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(run).glob(f"{TRAININGS}*")):
        if path.suffix == ".jsonl" or path.suffix[1:].isdigit():
            there |= JsonLines(path).all()
    differing = {key: wanted.difference(*about) for key in there if (about := _about(key)) is not None}
    if not differing:
        message = f"there are no finished trainings in {printable(run)}"
        hint = f"name the folder of a search that trained networks; it holds {TRAININGS}"
        raise StudyError.at("--reuse", run, "missing-file", message, hint)
    if all(differing.values()):
        _refuse(run, min(differing.values(), key=len))
    return {key: there[key] for key, fields in differing.items() if not fields}


def _refuse(run: str, fields: Sequence[str]) -> NoReturn:
    message = f"the trainings in {printable(run)} do not fit this search (there -> here): {'; '.join(fields)}"
    hint = "leave --reuse out to train anew, or search with what they were trained with"
    raise StudyError.at("--reuse", run, "other-study", message, hint)


def _about(key: str) -> tuple[str, str, int, str] | None:
    """What the key of a training says: data, recipe, seed, first weights; None where it is of another form."""
    _, *about = key.split(" | ")
    if len(about) < 3 or not re.fullmatch(r"seed=\d+", about[2]):
        return None
    start = next((part for part in about[3:] if part.startswith("weights=")), "")
    return about[0], about[1], int(about[2].removeprefix("seed=")), start


def _fields(key: str) -> dict[str, str]:
    return dict(_FIELD.findall(key))


def _data_fields(key: str) -> Mapping[str, Any]:
    """The data's fields and their fingerprint, without the image size: networks of one space may differ in it."""
    fields = _fields(_SIZE.sub("", key))
    prints = [fields.pop(name) for name in _CONTENTS if name in fields]
    kind = key.partition(" ")[0]
    named = {} if "=" in kind else {"type": kind}
    return {"data": {**named, **fields}, **({FINGERPRINT: " ".join(prints)} if prints else {})}
