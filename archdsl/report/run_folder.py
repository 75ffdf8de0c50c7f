"""The folder of a search: what is in it, and that nothing else is ever overwritten."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from archdsl.errors import ArchError, Problem, StudyError, at_argument
from archdsl.report.front_csv import front_csv
from archdsl.report.front_picture import front_svg
from archdsl.report.front_rows import FrontRow
from archdsl.report.front_specs import MARK, front_spec
from archdsl.study.front import Front
from archdsl.writing import as_json, claim_folder, write_file

MARKER = "search.json"
JOURNAL = "study.journal"
TRAININGS = "trainings.jsonl"
PAGE = "report.html"


class RunFolder:
    """`runs/<study>/`: search.json (it marks the folder as ours), study.journal, trainings.jsonl, and the front as
    report.html, front.csv, front.svg and front/*.yaml.

    Files are replaced whole or not at all. Errors: ArchError when the folder holds somebody else's files.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = claim_folder(path, MARKER)
        self.journal, self.trainings = self.path / JOURNAL, self.path / TRAININGS

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
        while any(Path(f"{file}.{number}").exists() for file in (self.journal, self.trainings)):
            number += 1
        for file in (self.journal, self.trainings):
            with contextlib.suppress(FileNotFoundError):
                os.rename(file, f"{file}.{number}")

    def write_front(self, front: Front, rows: tuple[FrontRow, ...], study: str, title: str) -> None:
        """Write the front as CSV, specs and picture, and remove the specs of an earlier front."""
        folder = self._specs_folder()
        names = {f"{row.name}.yaml" for row in rows}
        for name in names:
            self._refuse_stranger(folder / name)
        for row in rows:
            write_file(folder / f"{row.name}.yaml", front_spec(row, study))
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

    def _specs_folder(self) -> Path:
        folder = self.path / "front"
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise _refusal(folder, "it is a link or a file, not a folder")
        folder.mkdir(exist_ok=True)
        return folder

    def _refuse_stranger(self, path: Path) -> None:
        if path.is_symlink() or (path.exists() and not _is_ours(path)):
            raise _refusal(path, "archdsl did not write it")


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def _refusal(path: Path, why: str) -> ArchError:
    message = f"{path} is not overwritten: {why}"
    return StudyError(
        Problem(at_argument("--out", str(path)), "output-folder", message, "move it, or choose another --out")
    )
