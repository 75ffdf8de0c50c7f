"""Opening the files that archdsl keeps for itself, and nothing else that stands in their place.

A study, a run folder or a cache lies where others may write, too. A link there would make archdsl write somewhere else,
and a pipe would make it wait for ever. So no link is followed, only regular files with one name are opened, and
subfolders are real folders. What the user names (`--out`, `--storage`, the folder of caches) may lie behind links.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISLNK, "a link (symbolic links are not followed)"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISREG, "a file"),
)
_OTHER_KIND = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR)
"""What `open` refuses a link, a pipe without a reader or a socket, and a folder with."""


class NotOurs(OSError):
    """Something else stands where a file or a folder of archdsl's belongs. Its text says where and what."""


def open_own(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """Open a regular file that archdsl keeps for itself, without following a link or waiting.

    Args:
        flags: of `os.open`; a file is emptied (O_TRUNC) only after it was found to be ours
        mode: of a file that is created
    Returns: a descriptor, which child processes do not inherit
    Raises:
        NotOurs: the path is a link, a folder, a pipe or a device; or, to be written, a file with a second name (a hard
            link), under which the change would appear, too
        OSError: as `os.open`
    """
    more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags & ~os.O_TRUNC | more, mode)
    except OSError as error:
        if error.errno in _OTHER_KIND and (kind := _kind_of(path)) != "a file":
            raise NotOurs(f"{os.fspath(path)} is {kind}, not a regular file of archdsl") from None
        raise
    try:
        _check(path, os.fstat(descriptor), is_written=bool(flags & (os.O_WRONLY | os.O_RDWR)))
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_own(path: str | os.PathLike[str]) -> None:
    """Check a file of ours that a library is to open and write, without opening it.

    SQLite needs this: closing any descriptor of its file would release the locks that the process has on it.

    Raises: as `open_own`, e.g. FileNotFoundError
    """
    _check(path, os.lstat(path), is_written=True)


def read_own(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file that archdsl keeps for itself. Raises: as `open_own`"""
    with open(open_own(path), "rb") as file:
        return file.read()


def own_folder(path: str | os.PathLike[str], mode: int = 0o777) -> Path:
    """Make a folder that archdsl keeps inside another one, with those above it, or check the one that is there.

    Raises:
        NotOurs: the path is a link, a file or a pipe
        OSError: the folder cannot be made
    """
    folder = Path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode)
    except FileExistsError:
        if (kind := _kind_of(folder)) != "a folder":
            raise NotOurs(f"{folder} is {kind}, not a folder of archdsl") from None
    return folder


def _check(path: str | os.PathLike[str], info: os.stat_result, *, is_written: bool) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise NotOurs(f"{os.fspath(path)} is {_kind(info)}, not a regular file of archdsl")
    if info.st_nlink > 1 and is_written:
        raise NotOurs(f"{os.fspath(path)} has a second name (a hard link), and what is written would change both")


def _kind_of(path: str | os.PathLike[str]) -> str:
    return _kind(os.lstat(path))


def _kind(info: os.stat_result) -> str:
    return next((kind for is_kind, kind in _KINDS if is_kind(info.st_mode)), "a device")
