"""Files written atomically, folders that mark whose they are, and the folder of caches."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from errno import EISDIR
from pathlib import Path
from typing import IO

from archdsl.errors import ArchError

_NOWHERE = Path(os.devnull, "archdsl")


def write_file(path: str | os.PathLike[str], data: str | bytes | memoryview) -> Path:
    """Write `data` to `path` atomically and durably.

    Returns: the path
    Raises: ArchError (`cannot-write`) when the file system refuses; the old file is then unchanged
    """
    raw = data.encode() if isinstance(data, str) else data
    return write_with(path, lambda file: file.write(raw))


def check_place(path: str | os.PathLike[str]) -> None:
    """Check that `write_file` could write to `path`, before the work whose result goes there. Leaves nothing behind.

    Raises: ArchError (`cannot-write`) when the folder is missing or not writable, or `path` is a folder
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        descriptor, trial = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        os.close(descriptor)
        os.unlink(trial)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: OSError) -> ArchError:
    message = f"{target} cannot be written: {error.strerror or error}"
    hint = "choose another folder, or make room"
    return ArchError.at(str(target), str(target), "cannot-write", message, hint)


def write_with(
    path: str | os.PathLike[str],
    fill: Callable[[IO[bytes]], object],
    named: Callable[[], str] | None = None,
    *,
    synced: bool = True,
) -> Path:
    """Write a temporary file and rename it to `path`, so that a crash leaves the old file or the new one.

    Args:
        fill: writes the content to the open file
        named: gives the file's final name after `fill`, for names that depend on the content, such as a digest
        synced: wait until file and folder are on the disk; a power loss may undo an unsynced write
    Returns: the path of the file
    Raises: ArchError (`cannot-write`) when the file system refuses; the temporary file is then removed
    """
    target = Path(path)
    new = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        with open(new, "xb") as file:
            fill(file)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        if named:
            target = target.with_name(named())
        os.replace(new, target)
        if synced:
            sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            new.unlink()
    return target


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def claim_folder(path: str | os.PathLike[str], marker: str) -> Path:
    """Create the folder `path`, or reuse one that is empty or holds the file `marker`.

    Temporary files of `write_with` are ignored: another process may be claiming the folder at the same time.
    Returns: the folder
    Raises: ArchError (`output-folder`) when it is a file or a link, or holds files of other programs
    """
    folder = Path(path)

    def refuse(message: str) -> ArchError:
        return ArchError.at(str(path), str(path), "output-folder", message, "choose another folder")

    if folder.is_symlink():
        raise refuse(f"{folder} is a link; results are not written through links")
    if folder.exists() and not folder.is_dir():
        raise refuse(f"{folder} is a file, not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(not _is_half_written(path) for path in folder.iterdir()) and not (folder / marker).is_file()
    except OSError as error:
        raise refuse(f"{folder} cannot be used: {error.strerror or error}") from error
    if taken:
        raise refuse(f"{folder} holds files that archdsl did not write (there is no {marker} in it)")
    return folder


def _is_half_written(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".new")


def as_json(data: object) -> str:
    """`data` as indented JSON text with a final newline; NaN and infinity raise ValueError.

    What cannot be printed is escaped: bytes of file names that are not UTF-8 (as `\\udcff`), what moves a terminal's
    cursor or turns the direction of writing. So the text can be shown anywhere, and read back.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub("[^\n -~]", lambda found: found[0] if found[0].isprintable() else _escaped(found[0]), text) + "\n"


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def cache_folder() -> Path:
    """The folder of caches: $ARCHDSL_CACHE_DIR, else $XDG_CACHE_HOME/archdsl, else ~/.cache/archdsl.

    Where nothing says what this user's home folder is, the path is one at which nothing can be: what uses a cache works
    without it, as where it cannot be written. `why_no_cache` says which it is.
    """
    own = os.environ.get("ARCHDSL_CACHE_DIR")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared) / "archdsl"
    home = os.path.expanduser("~")
    return Path(home, ".cache", "archdsl") if os.path.isabs(home) else _NOWHERE


def why_no_cache(folder: Path) -> str | None:
    """Why nothing can be kept in a folder of caches, which is made if it is missing; None when something can."""
    if folder == _NOWHERE:
        return "nothing is kept in a cache, because this user has no home folder"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"nothing is kept in a cache: {folder} could not be made ({error.strerror or error})"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"nothing is kept in a cache: {folder} cannot be written"
    return None
