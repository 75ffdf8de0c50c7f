"""TensorRT's timing cache as a file that builds share, so that no kernel is timed twice.

The file holds what TensorRT writes, so `trtexec --timingCacheFile` reads it too. A cache only saves time: whatever is
wrong with it, a build goes on. A file that TensorRT will not take (damaged, another version's, another GPU's, not a
cache at all) is moved aside, never overwritten, and a new one is begun. Each of these raises a TimingCacheWarning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from archdsl.backends.trt import api as api
from archdsl.errors import ArchError
from archdsl.files import write_file
from archdsl.locks import LockBusy, locked
from archdsl.owned import read_own

T = TypeVar("T")

LOCK_S = 60.0
"""How long to wait for other builds to save theirs. Saving takes milliseconds, so a longer wait means a dead lock."""


class TimingCacheWarning(UserWarning):
    """A timing cache or an engine cache could not be used; the build itself succeeded."""


@contextmanager
def shared_timings(config: api.IBuilderConfig, path: Path | None) -> Iterator[None]:
    """While a build runs, it has the timings in the file `path` (None: no file); afterwards its own are saved there."""
    cache = _attached_file(config, path) if path else None
    yield
    if path and cache is not None:
        _save(config, cache, path)


def _attached_file(config: api.IBuilderConfig, path: Path) -> api.ITimingCache | None:
    """What the file holds, or an empty cache, attached to the build; None when neither can be."""
    try:
        data = _read(path)
    except OSError as error:
        _warn(f"the timing cache {path} cannot be read: {error.strerror or error}")
        return None
    cache = _attached(config, data) if data else None
    if cache is None:  # `_save` warns of a file that is wrong, and moves it aside
        cache = _attached(config, b"")
    if cache is None:
        _warn(f"TensorRT takes no timing cache, not even an empty one; {path} is not used")
    return cache


def _save(config: api.IBuilderConfig, cache: api.ITimingCache, path: Path) -> None:
    """Write the build's timings to the file, together with what other builds wrote there meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock"), LOCK_S):
            _merge(config, cache, path)
            memory = _quiet(cache.serialize)
            if memory is None:
                _warn(f"TensorRT did not give its timings; {path} stays as it was")
            else:
                write_file(path, api.copied(memory))
    except LockBusy:
        held = f"another build has held the lock of {path} for {LOCK_S:.0f} s"
        _warn(f"the timing cache {path} could not be saved: {held}")
    except (ArchError, OSError) as error:
        _warn(f"the timing cache {path} could not be saved: {error}")


def _merge(config: api.IBuilderConfig, ours: api.ITimingCache, path: Path) -> None:
    """Take in what the file holds now; entries that both have stay as ours are. A file of no use is moved aside."""
    data = _read(path)
    theirs = _quiet(lambda: config.create_timing_cache(data)) if data else None
    if data and (theirs is None or not _quiet(lambda: ours.combine(theirs, ignore_mismatch=False))):
        aside = path.with_name(f"{path.name}.unused-{hashlib.sha256(data).hexdigest()[:8]}")
        os.replace(path, aside)
        _warn(
            f"TensorRT cannot use the timing cache {path} (damaged, or of another version or GPU); "
            f"it is now {aside.name} and a new one is begun"
        )


def _read(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return read_own(path)
    return b""


def cache_file(path: str | os.PathLike[str], version: str, gpu: str) -> Path:
    """The file to use: `path` itself, or in the folder `path` the one for this TensorRT and GPU.

    A folder can serve several GPUs and versions; one file would be begun anew by each of them in turn.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    device = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-")
    return path / f"tensorrt-{version}-{device}.timings"


def _attached(config: api.IBuilderConfig, data: bytes) -> api.ITimingCache | None:
    """A cache of `data`, attached; None when TensorRT refuses either."""
    cache = _quiet(lambda: config.create_timing_cache(data))
    if cache is None or not _quiet(lambda: config.set_timing_cache(cache, ignore_mismatch=False)):
        return None
    return cache


def _quiet(call: Callable[[], T]) -> T | None:
    """The bindings return None for what they refuse, or raise; both are None here."""
    with contextlib.suppress(Exception):
        return call()
    return None


def _warn(message: str) -> None:
    warnings.warn(message, TimingCacheWarning, stacklevel=3)
