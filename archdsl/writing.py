"""Writing files: whole or not at all, never through a link, never over something that is not ours."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from typing import IO

from archdsl.errors import ArchError, Problem, at_argument


def write_file(path: str | os.PathLike[str], data: str | bytes | memoryview) -> Path:
    """Write `data` to `path`, whole or not at all. Errors: ArchError when the file system refuses."""
    raw = data.encode() if isinstance(data, str) else data
    return write_with(path, lambda file: file.write(raw))


def check_place(path: str | os.PathLike[str]) -> None:
    """Find out whether `write_file` could write here, before much is done for it. Nothing is left behind.

    Errors: ArchError (`cannot-write`) when the folder is missing or takes no files, or `path` is a folder
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
    return ArchError(Problem(at_argument(str(target), str(target)), "cannot-write", message, hint))


def write_with(
    path: str | os.PathLike[str],
    fill: Callable[[IO[bytes]], object],
    named: Callable[[], str] | None = None,
    *,
    synced: bool = True,
) -> Path:
    """Let `fill` write a new file that then takes the place of `path`: a crash leaves what was there before.

    named: what to call the file instead, where that is known only once it is written (a digest of its bytes)
    synced: wait until the disk has it; without that a power loss may lose it
    Errors: ArchError (`cannot-write`) when the file system refuses; nothing half-written stays
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


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """One process at a time is in here; the others wait. lock: a file for nothing else, made when it is missing"""
    import fcntl

    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a renamed file stay renamed after a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def claim_folder(path: str | os.PathLike[str], marker: str) -> Path:
    """Make `path` a folder of ours, or take up one that was: it is empty, or holds our file `marker`.

    A file that is just being written counts for nothing: another process may be claiming the folder, too.
    Errors: ArchError when it is a file or a link, or holds somebody else's files
    """
    folder = Path(path)

    def refuse(message: str) -> ArchError:
        problem = Problem(at_argument(str(path), str(path)), "output-folder", message, "choose another folder")
        return ArchError(problem)

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
    """Readable JSON text, the same for equal data."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def cache_folder() -> Path:
    """Where what can be made again is kept: $ARCHDSL_CACHE_DIR, else $XDG_CACHE_HOME/archdsl, else ~/.cache/archdsl."""
    own = os.environ.get("ARCHDSL_CACHE_DIR")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "archdsl"
