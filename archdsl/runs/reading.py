"""A search that is looked at: its study and its space, from its folder or from where the study is kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from archdsl.errors import StudyError, at_argument
from archdsl.language import Space
from archdsl.language.text.words import joined
from archdsl.owned import open_own
from archdsl.report.front_rows import FrontRow, front_rows
from archdsl.runs.folder import JOURNAL, MARKER
from archdsl.runs.job import space_of
from archdsl.runs.search_parts import constraints_of
from archdsl.study.front.pareto import Front, front_of
from archdsl.study.record import Record
from archdsl.study.storage.opening import attributes_of
from archdsl.study.storage.reading import open_to_read
from archdsl.study.storage.study import storage_errors
from archdsl.study.storage.urls import is_url, masked
from archdsl.study.view import StudyView, view_of
from archdsl.suggestions import did_you_mean


@dataclass(frozen=True)
class OpenedSearch:
    """A study as it stands. folder: of the search, where it was named by that; storage: where the study is kept"""

    view: StudyView
    storage: str
    folder: Path | None

    @cached_property
    def space(self) -> Space:
        """The space that is searched. Errors: StudyError when the study does not hold it, SpecError for a block of a
        plug-in that is not there"""
        if self.view.job is None:
            message = f"the study {self.view.name} does not say which space it searches: archdsl did not begin it"
            raise StudyError.at("RUN", self.storage, "other-study", message)
        return space_of(self.view.job)

    @cached_property
    def known(self) -> tuple[Record, ...]:
        """All trials, with re-evaluated values where there are any."""
        labels = tuple(target.label for target in self.space.objectives.targets)
        return self.view.known(constraints_of(self.space, labels))

    @cached_property
    def front(self) -> Front:
        """The front so far."""
        return front_of(self.known, self.view.objectives)

    @cached_property
    def rows(self) -> tuple[FrontRow, ...]:
        """The front as plain facts."""
        return front_rows(self.front, self.space)


def open_search(run: str | os.PathLike[str], study: str | None = None) -> OpenedSearch:
    """Look at a search; nothing of it is changed, created or locked.

    Args:
        run: its folder, its journal file, or the URL of the database
        study: its name, where several are kept there
    Raises: StudyError when there is none
    """
    text = os.fspath(run)
    folder = None if is_url(text) else Path(text)
    if folder is not None and folder.is_dir():
        storage, study = _of_folder(folder, study)
    else:
        storage, folder = text, None
    opened = open_to_read(storage if is_url(storage) else Path(storage))
    with storage_errors(at_argument("RUN", masked(storage))):
        names = [name for name, kept in attributes_of(opened).items() if "plan" in kept]
        view = view_of(opened, chosen_study(names, study))
    return OpenedSearch(view, masked(storage), folder)


def _of_folder(folder: Path, study: str | None) -> tuple[str, str | None]:
    """Where the study of a folder is kept, and its name. Errors: StudyError when the folder is that of no search"""
    marker = folder / MARKER
    try:
        with open(open_own(marker), encoding="utf-8") as file:
            facts = json.load(file)
        name, kept = str(facts["study"]), str(facts["storage"])
    except FileNotFoundError:
        message, hint = f"{folder} is not the folder of a search", f"it would hold {MARKER} and {JOURNAL}"
        raise StudyError.at("RUN", str(folder), "missing-file", message, hint) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError.at("RUN", str(marker), "damaged", f"{marker} cannot be read: {error}") from None
    if kept == JOURNAL or (folder / JOURNAL).is_file():
        return str(folder / JOURNAL), study or name
    if "***" in kept:
        message, hint = f"the study of {folder} is kept in {kept}", "give that URL with its password"
        raise StudyError.at("RUN", str(folder), "missing-file", message, hint)
    return kept, study or name


def chosen_study(names: list[str], asked: str | None) -> str:
    """The study that is meant. Raises: StudyError when there is none, or several and none was named"""
    if asked in names:
        return str(asked)
    if asked is None and len(names) == 1:
        return names[0]
    hint: str | None
    if not names:
        message = "there is no study here that archdsl has begun"
        hint = "begin it with `archdsl search SPACE --storage …`; --workers 0 leaves all the work to workers"
    elif asked is None:
        message, hint = "several studies are kept here", f"choose one with --study: {', '.join(sorted(names))}"
    else:
        message = f"there is no study `{asked}` here"
        hint = joined(did_you_mean(asked, names), f"Studies: {', '.join(sorted(names))}.")
    raise StudyError.at("--study", asked or "", "unknown-name", message, hint)
