"""A folder that goes from one complete state to the next, whatever interrupts it.

New files are made in a hidden folder inside it. When all of them are there, one rename decides that they are the
contents from now on; then they are put in place, and the next process finishes that if it was cut off. The folder's
*marker* lists its files. It is missing while they are being put in place, so a folder that has it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from archdsl.errors import ArchError, Problem, at_argument
from archdsl.files import as_json, claim_folder, sync_folder, write_file
from archdsl.locks import LockBusy, locked
from archdsl.owned import open_own, own_folder, read_own

MAKING, MADE = ".archdsl-making", ".archdsl-made"
"""Files that are being made: of no use when that was interrupted. Files that all are made, but not all in place."""

BEFORE = ".before"
"""In MADE: the marker of the build that is being replaced."""


@contextmanager
def new_contents(path: str | os.PathLike[str], marker: str) -> Iterator[Path]:
    """A folder to write files in, `marker` last (see `write_marker`); they become the contents of `path` when the block
    ends. If it raises, `path` is as it was. Files in `path` that are not ours stay.

    Errors: ArchError when `path` is a file, a link, holds somebody else's files, cannot be written, or is being built
        by another process; when a file of ours in it has been changed, or one that is not ours is in the way
    """
    folder = Path(path)
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        if folder.is_symlink() or not folder.is_dir():
            claim_folder(folder, marker)
        with ExitStack() as stack:
            _lock(folder, stack)
            making = _made_ready(folder, marker)
            try:
                yield making
                _check(folder, making, marker)
                with _write_errors(folder):
                    sync_folder(making)
                    os.rename(making, folder / MADE)
                    _put_in_place(folder, marker)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    except BaseException:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
        raise


def write_marker(making: Path, marker: str, facts: dict[str, object]) -> dict[str, object]:
    """Write `facts` and the files' names, sizes and digests as the marker. -> what it says."""
    files = [
        {"name": each.name, "bytes": each.stat().st_size, "sha256": digest_of(each)}
        for each in sorted(making.iterdir())
        if each.name != marker
    ]
    record = {**facts, "files": files}
    write_file(making / marker, as_json(record))
    return record


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(open_own(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _made_ready(folder: Path, marker: str) -> Path:
    """The empty folder to make files in, after tidying up what an interrupted build left."""
    with _write_errors(folder):
        for left in (MAKING, MADE):
            if os.path.lexists(folder / left):
                own_folder(folder / left)
        if (folder / MADE / marker).is_file():
            _put_in_place(folder, marker)
        for left in (MAKING, MADE):
            if (folder / left).is_dir():
                shutil.rmtree(folder / left)
    claim_folder(folder, marker)
    with _write_errors(folder):
        (folder / MAKING).mkdir()
    return folder / MAKING


def _check(folder: Path, making: Path, marker: str) -> None:
    """Errors: ArchError when a file would be lost that is not as a build of ours left it."""
    assert (making / marker).is_file(), "the marker is written last"
    ours = _listed(folder / marker)
    problems = []
    for name in sorted(ours | {each.name: "" for each in making.iterdir()}):
        path = folder / name
        if name != marker and os.path.lexists(path):
            mine = path.is_file() and not path.is_symlink() and name in ours
            if not mine or digest_of(path) != ours[name]:
                what = "was changed after it was built" if mine else "was not written by archdsl"
                hint = "move it away, or choose another folder"
                problems.append(Problem(at_argument(str(folder), name), "output-folder", f"{path} {what}", hint))
    if problems:
        raise ArchError(problems)


def _put_in_place(folder: Path, marker: str) -> None:
    """Move the files of MADE to where they belong. It can be begun again wherever it was cut off."""
    made = folder / MADE
    if (folder / marker).exists():
        os.replace(folder / marker, made / BEFORE)
    for name in _listed(made / BEFORE).keys() - _listed(made / marker).keys():
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    for each in sorted(made.iterdir()):
        if each.name not in (BEFORE, marker):
            os.replace(each, folder / each.name)
    os.replace(made / marker, folder / marker)
    sync_folder(folder)
    shutil.rmtree(made)


def _listed(marker: Path) -> dict[str, str]:
    """Name and digest of the files that a marker lists: of plain names, whatever it says."""
    try:
        files = {file["name"]: file["sha256"] for file in json.loads(read_own(marker))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {
        name: digest for name, digest in files.items() if isinstance(name, str) and re.match(r"[^./\0][^/\0]*\Z", name)
    }


def _lock(folder: Path, stack: ExitStack) -> None:
    """Keep other builds out of the folder until `stack` ends, or the process, however that ends."""
    try:
        with _write_errors(folder):
            stack.enter_context(locked(folder, timeout_s=0))
    except LockBusy:
        message = f"another process is building in {folder}"
        raise ArchError.at(str(folder), str(folder), "output-folder", message, "wait for it") from None


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """What the file system refuses, as an ArchError."""
    try:
        yield
    except OSError as error:
        message, hint = f"{folder} cannot be written: {error.strerror or error}", "choose another folder, or make room"
        raise ArchError.at(str(folder), str(folder), "output-folder", message, hint) from error
