"""Which files may be read, and how: the shipped ones by name, a user's own by path, and nothing outside the project.

What a user names on the command line is opened as named. What a *file* names (`extends`, `base`) is untrusted: it must
be a regular `.yaml` file inside the project, reached without a symbolic link, and it is opened step by step so that
nothing can be swapped in between.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from archdsl.language.text import limits
from archdsl.language.text.file_kinds import kind_of_file
from archdsl.language.text.node import Mark, SourceText, fail
from archdsl.language.text.words import NAME, joined, listed, quoted
from archdsl.suggestions import did_you_mean

Folder = Literal["specs", "search", "recipes"]

_KINDS: dict[Folder, str] = {"specs": "spec", "search": "space", "recipes": "recipe"}

SUFFIXES = (".yaml", ".yml")
_NAME = re.compile(NAME.removeprefix("^").removesuffix("$") + r"\Z")
_PROJECT_MARKS = ("pyproject.toml", ".git")


_STDIN = "<stdin>"


class StandardInput(os.PathLike[str]):
    """A text that is piped in, where a path may stand; it is read once. Its paths start at the working folder."""

    def __init__(self) -> None:
        self._data: bytes | None = None

    def __fspath__(self) -> str:
        return "-"

    def __str__(self) -> str:
        return _STDIN

    def open(self, budget: Budget) -> tuple[bytes, Home]:
        """Its bytes, and where it counts as lying. Raises: SpecError when it is closed, unreadable or too long"""
        mark = SourceText(_STDIN).mark()
        if self._data is None:
            try:
                self._data = sys.stdin.buffer.read(limits.MAX_FILE_BYTES + 1)
            except (OSError, ValueError, AttributeError) as error:  # AttributeError: Python has None for a closed one
                reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is closed"
                raise fail(mark, "missing-file", f"standard input cannot be read: {reason}") from None
        if len(self._data) > limits.MAX_FILE_BYTES:
            raise fail(mark, "limit", f"a text may have at most {limits.MAX_FILE_BYTES:_} bytes")
        budget.charge(len(self._data), mark)
        return self._data, Home(_STDIN, os.getcwd(), _project_of(os.getcwd()))


@dataclass
class Budget:
    """What one load may still read."""

    files: int = limits.MAX_FILES
    size: int = limits.MAX_TOTAL_BYTES

    def charge(self, size: int, mark: Mark) -> None:
        """Count one file of so many bytes; SpecError at `mark` when that is too much."""
        self.files -= 1
        self.size -= size
        if self.files < 0:
            raise fail(mark, "limit", f"one spec may be made of at most {limits.MAX_FILES} files")
        if self.size < 0:
            raise fail(mark, "limit", f"a spec and what it extends may have at most {limits.MAX_TOTAL_BYTES:_} bytes")


@dataclass(frozen=True)
class Home:
    """Where a text came from: what paths in it are relative to, and the folder they must stay in.

    shown: the file's name in errors; folder, root: real absolute folders, None for a text that came from no file
    """

    shown: str
    folder: str | None = None
    root: str | None = None
    shipped: bool = False
    identity: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def stem(self) -> str:
        """The file's name without folder and suffix."""
        return "stdin" if self.shown == _STDIN else os.path.splitext(os.path.basename(self.shown))[0]


def shipped_folder(folder: Folder) -> Path:
    """Where the specs or spaces lie that come with archdsl: in the wheel, or in the checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "_data" / folder
    return inside if inside.is_dir() else package.parent / folder


def shipped(folder: Folder) -> list[Path]:
    """The files that come with archdsl, by name."""
    return sorted(path for path in shipped_folder(folder).glob("**/*.yaml") if path.is_file())


def shipped_names(folder: Folder) -> dict[str, Path]:
    """Name -> path of the shipped files of a folder."""
    return {path.stem: path for path in shipped(folder)}


def is_name(text: str) -> bool:
    """Whether this can only be a shipped name: no folder, no suffix."""
    return bool(_NAME.match(text)) and not text.endswith(SUFFIXES)


def open_named(text: str, folder: Folder, mark: Mark, budget: Budget) -> tuple[bytes, Home]:
    """A shipped file by name."""
    path = shipped_folder(folder) / f"{text}.yaml"
    if os.path.isfile(path):
        return _open_trusted(path, mark, budget, shipped=True)
    names = shipped_names(folder)
    if text not in names:
        hint = joined(
            did_you_mean(text, names),
            f"archdsl ships: {listed(names, 60)}." if names else None,
            f"A file of your own is named by its path: ./{text}.yaml",
        )
        raise fail(mark, "unknown-name", f"no {_KINDS[folder]} called {quoted(text)} ships with archdsl", hint)
    return _open_trusted(names[text], mark, budget, shipped=True)


def open_given(path: object, folder: Folder, budget: Budget, mark: Mark | None = None) -> tuple[bytes, Home]:
    """What the user named: a shipped name or a path, or what is piped in. `mark`: where, if not as an argument."""
    if isinstance(path, StandardInput):
        return path.open(budget)
    if not isinstance(path, str | os.PathLike):
        kind = type(path).__name__
        raise fail(SourceText("<argument>").mark(), "wrong-type", f"a name or a path is needed, but got {kind}")
    text = os.fsdecode(os.fspath(path))
    mark = mark or SourceText(text or "<argument>").mark()
    if not text or "\0" in text:
        raise fail(mark, "missing-file", "this is no name of a file")
    if os.path.isdir(text) and not (is_name(text) and text in shipped_names(folder)):
        own = os.path.join(text, "spec.yaml")
        hint = f"its spec is {own}" if os.path.isfile(own) else None
        raise fail(mark, "not-a-file", f"{quoted(text, 200)} is a folder, not a regular file", hint)
    if isinstance(path, str) and is_name(text) and not os.path.isfile(text):
        return open_named(text, folder, mark, budget)
    return _open_trusted(Path(os.path.expanduser(text)), mark, budget)


def open_below(text: str, home: Home, mark: Mark, budget: Budget) -> tuple[bytes, Home]:
    """What a file names: a path relative to that file, inside its project."""
    parts = _checked_parts(text, home, mark)
    assert home.root is not None
    try:
        data, info = _open_beneath(home.root, parts, own=not home.shipped)
    except OSError as error:
        raise _os_error(error, text, os.path.dirname(os.path.join(home.folder or "", text)), mark) from None
    except _Refused as refused:
        raise fail(mark, "extends", f"{quoted(text)} is not read: {refused}") from None
    budget.charge(len(data), mark)
    shown = os.path.normpath(os.path.join(os.path.dirname(home.shown), text))
    folder = os.path.dirname(os.path.join(home.root, *parts))
    return data, Home(shown, folder, home.root, home.shipped, (info.st_dev, info.st_ino))


def home_of(file: str) -> Home | None:
    """The home of a file that was read before, so that what it names can be opened; None when it is no file."""
    if not os.path.isfile(file):
        return None
    path = Path(file)
    folder = os.path.dirname(os.path.realpath(path))
    for shipping in get_args(Folder):
        root = shipped_folder(shipping).resolve()
        if folder == str(root):
            return Home(_shown(path), folder, str(root.parent), shipped=True)
    return Home(_shown(path), folder, _project_of(folder))


def _checked_parts(text: str, home: Home, mark: Mark) -> list[str]:
    """The steps from the project's root to the file, refusing whatever could lead out of it."""
    reason = None
    if "\0" in text or "\n" in text:
        reason = "it is no name of a file"
    elif "://" in text:
        reason = "only files of the project can be named, not addresses"
    elif os.path.isabs(text) or text.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", text):
        reason = "the path must be relative to the file that names it"
    elif text.startswith("~"):
        reason = "`~` is not expanded in a spec; the path must be relative to the file that names it"
    elif "\\" in text:
        reason = "folders are separated by `/`"
    elif not text.endswith(SUFFIXES):
        reason = "a path must end in .yaml or .yml"
    elif home.folder is None or home.root is None:
        reason = "a text that came from no file can name shipped specs only"
    if reason is not None or home.folder is None or home.root is None:
        hint = "name a shipped spec, or a file inside the project"
        raise fail(mark, "extends", f"{quoted(text)} is not read: {reason}", hint)
    parts = [part for part in os.path.relpath(home.folder, home.root).split(os.sep) if part != "."]
    for part in text.split("/"):
        if part == "..":
            if not parts:
                marks = " or ".join(_PROJECT_MARKS)
                hint = f"the project is the folder that holds {marks}, or the file's own folder"
                raise fail(mark, "extends", f"{quoted(text)} is not read: it leads out of the project", hint)
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts


class _Refused(Exception):
    """A file that may not be read; the text says why."""


def _open_trusted(path: Path, mark: Mark, budget: Budget, shipped: bool = False) -> tuple[bytes, Home]:
    """A file that the user named: links are followed, but it must be a regular file of a sensible size."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        data, info = _read(handle)
        folder = os.path.dirname(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise _os_error(error, str(path), os.path.dirname(path), mark) from None
    except _Refused as refused:
        rule = "not-a-file" if "regular" in str(refused) else "limit"
        raise fail(mark, rule, f"it cannot be read: {refused}") from None
    budget.charge(len(data), mark)
    root = str(shipped_folder("specs").resolve().parent) if shipped else _project_of(folder)
    return data, Home(_shown(path), folder, root, shipped, (info.st_dev, info.st_ino))


def _shown(path: Path) -> str:
    """A path as errors show it: relative when it lies below the working folder."""
    with suppress(OSError, ValueError):
        absolute = os.path.abspath(path)
        relative = os.path.relpath(absolute)
        if not relative.startswith(".."):
            return relative
        return str(path) if not path.is_absolute() else absolute
    return str(path)


def _project_of(folder: str) -> str:
    """The nearest folder above that marks a project; without one, the folder itself."""
    here = Path(folder)
    for candidate in (here, *here.parents):
        if any((candidate / mark).exists() for mark in _PROJECT_MARKS):
            return str(candidate)
    return folder


def _open_beneath(root: str, parts: list[str], *, own: bool) -> tuple[bytes, os.stat_result]:
    """Open `root/parts…` without following a symbolic link anywhere below `root`."""
    if not parts:
        raise _Refused("it is a folder")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    if os.open not in os.supports_dir_fd:  # e.g. Windows: check, then open
        path = root
        for part in parts:
            path = os.path.join(path, part)
            if os.path.islink(path):
                raise _Refused("symbolic links are not followed")
        return _read(os.open(path, flags), own=own)
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, flags | os.O_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        return _read(os.open(parts[-1], flags, dir_fd=handle), own=own)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or (error.errno == errno.ENOTDIR and _has_link(root, parts)):
            raise _Refused("symbolic links are not followed") from None
        raise
    finally:
        os.close(handle)


def _has_link(root: str, parts: list[str]) -> bool:
    return any(os.path.islink(os.path.join(root, *parts[: count + 1])) for count in range(len(parts)))


def _read(handle: int, own: bool = False) -> tuple[bytes, os.stat_result]:
    """All bytes of an open regular file, closed afterwards. own: refuse a file that has a second name (hard link)."""
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            folder = "a folder, and " if stat.S_ISDIR(info.st_mode) else ""
            raise _Refused(f"it is {folder}not a regular file")
        if own and info.st_nlink != 1:
            raise _Refused("it has a second name outside (a hard link)")
        if info.st_size > limits.MAX_FILE_BYTES:
            kind = kind_of_file(file.read(512))
            what = f"it is {kind}, not YAML; " if kind else ""
            raise _Refused(f"{what}a file may have at most {limits.MAX_FILE_BYTES:_} bytes, this has {info.st_size:_}")
        data = file.read(limits.MAX_FILE_BYTES + 1)
        if len(data) > limits.MAX_FILE_BYTES:
            raise _Refused(f"a file may have at most {limits.MAX_FILE_BYTES:_} bytes")
        return data, info


def _os_error(error: OSError | ValueError, text: str, folder: str, mark: Mark) -> Exception:
    """What the system said about the file `text`; a neighbour in `folder` may be what was meant."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        near = None
        with suppress(OSError, ValueError):
            names = [name for name in os.listdir(folder or ".") if name.endswith(SUFFIXES)]
            near = did_you_mean(os.path.basename(text), names)
        return fail(mark, "missing-file", f"there is no file {quoted(text, 200)}", near)
    if isinstance(error, IsADirectoryError):
        return fail(mark, "not-a-file", f"{quoted(text, 200)} is a folder, not a regular file")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return fail(mark, "missing-file", f"{quoted(text, 200)} cannot be read: {reason}")
