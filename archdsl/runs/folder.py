"""The folder of a search: what is in it, and that nothing else is ever overwritten."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from archdsl.errors import Problem, StudyError, at_argument
from archdsl.files import as_json, claim_folder, write_file
from archdsl.owned import NotOurs, check_own, open_own, own_folder
from archdsl.report.front_csv import front_csv
from archdsl.report.front_picture import front_svg
from archdsl.report.front_rows import FrontRow
from archdsl.report.front_specs import MARK, front_spec
from archdsl.study.front.pareto import Front

MARKER = "search.json"
JOURNAL = "study.journal"
TRAININGS = "trainings.jsonl"
PAGE = "report.html"
BESIDE = (".turns", ".torn")
"""Ends of the names of files beside the journal."""
FOLDERS = ("workers", "checkpoints", "front")
"""Folders in the run folder: what workers print, states of unfinished trainings, specs of the front."""
_MOVE = "move it, or choose another --out"


class RunFolder:
    """`runs/<study>/`: search.json (it marks the folder as ours), study.journal, trainings.jsonl, and the front as
    report.html, front.csv, front.svg and front/*.yaml.

    Files are replaced whole or not at all. Errors: ArchError when the folder holds somebody else's files.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = claim_folder(path, MARKER)
        self.journal, self.trainings = self.path / JOURNAL, self.path / TRAININGS
        wrong = list(_not_ours([self.journal, self.trainings, *(Path(f"{self.journal}{end}") for end in BESIDE)]))
        wrong += _not_ours([self.path / name for name in FOLDERS], is_folder=True)
        if wrong:
            problems = [Problem(at_argument("--out", str(path)), "output-folder", text, _MOVE) for text in wrong]
            raise StudyError(problems)

    def describe(self, facts: dict[str, Any]) -> None:
        """Write search.json: what this search is."""
        write_file(self.path / MARKER, as_json(facts))

    def describe_if_new(self, facts: dict[str, Any]) -> None:
        """Write search.json where there is none: a worker may be the first here."""
        if not (self.path / MARKER).is_file():
            self.describe(facts)

    def set_aside(self) -> None:
        """Rename the study that is here, so that a new one can begin: nothing is deleted."""
        number = 1
        while any(os.path.lexists(f"{file}.{number}") for file in (self.journal, self.trainings)):
            number += 1
        for file in (self.journal, self.trainings):
            with contextlib.suppress(FileNotFoundError):
                os.rename(file, f"{file}.{number}")

    def write_front(
        self,
        front: Front,
        rows: tuple[FrontRow, ...],
        study: str,
        title: str,
        trained_on: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write the front as CSV, specs and picture, and remove the specs of an earlier front.

        trained_on: what is known of the data (`training.data.facts`)
        """
        folder = self.path / "front"
        try:
            own_folder(folder)
        except NotOurs:
            raise _refusal(folder, "it is a link or a file, not a folder") from None
        names = {f"{row.name}.yaml" for row in rows}
        for path in (folder / name for name in names):
            if path.is_symlink() or (path.exists() and not _is_ours(path)):
                raise _refusal(path, "archdsl did not write it")
        for row in rows:
            write_file(folder / f"{row.name}.yaml", front_spec(row, study, trained_on))
        for old in folder.glob("*.yaml"):
            if old.name not in names and _is_ours(old):
                old.unlink()
        write_file(self.path / "front.csv", front_csv(rows))
        picture = self.path / "front.svg"
        if len(front.objectives) >= 2 and rows:
            write_file(picture, front_svg(front, [row.name for row in rows], title))
        else:
            picture.unlink(missing_ok=True)

    def write_page(self, page: str) -> None:
        """Write the search as one page."""
        write_file(self.path / PAGE, page)


def _not_ours(paths: Iterable[Path], *, is_folder: bool = False) -> Iterator[str]:
    """What stands at some of the paths and is not ours, before anything is written there."""
    for path in filter(os.path.lexists, paths):
        try:
            (own_folder if is_folder else check_own)(path)
        except NotOurs as error:
            yield str(error)


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with open(open_own(path), "rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def _refusal(path: Path, why: str) -> StudyError:
    return StudyError.at("--out", str(path), "output-folder", f"{path} is not overwritten: {why}", _MOVE)
