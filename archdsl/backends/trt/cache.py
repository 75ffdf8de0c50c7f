"""TensorRT's timing cache as a file that builds share: what one build timed, no other build times again.

The file holds what TensorRT writes, so `trtexec --timingCacheFile` reads it too. A cache only saves time: whatever is
wrong with it, a build goes on. A file that TensorRT will not take (damaged, another version's, another GPU's, not a
cache at all) is moved aside, never overwritten, and a new one is begun. Each of these is told by a TimingCacheWarning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from archdsl.backends.trt import api as api
from archdsl.errors import ArchError
from archdsl.writing import write_file

T = TypeVar("T")

LOCK_S = 60.0
"""How long to wait for other builds to save theirs. Saving takes milliseconds, so a longer wait means a dead lock."""


class TimingCacheWarning(UserWarning):
    """Something about TensorRT's timing cache that the user may want to know; the build itself is fine."""


@dataclass
class SharedCache:
    """The timing cache of one build, and the file it shares with others. `attach` before the build, `save` after."""

    path: Path
    cache: api.ITimingCache | None = None

    def attach(self, config: api.IBuilderConfig) -> None:
        """Give the build what the file holds, or an empty cache."""
        try:
            data = self._read()
        except OSError as error:
            _warn(f"the timing cache {self.path} cannot be read: {error.strerror or error}")
            return
        self.cache = _attached(config, data) if data else None
        if self.cache is None:  # what is wrong with the file is told, and mended, when the timings are saved
            self.cache = _attached(config, b"")
        if self.cache is None:
            _warn(f"TensorRT takes no timing cache, not even an empty one; {self.path} is not used")

    def save(self, config: api.IBuilderConfig) -> None:
        """Write the build's timings to the file, together with what other builds wrote there meanwhile."""
        if self.cache is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path):
                self._merge(config, self.cache)
                memory = _quiet(self.cache.serialize)
                if memory is None:
                    _warn(f"TensorRT did not give its timings; {self.path} stays as it was")
                else:
                    write_file(self.path, api.copied(memory))
        except (ArchError, OSError) as error:
            _warn(f"the timing cache {self.path} could not be saved: {error}")

    def _merge(self, config: api.IBuilderConfig, ours: api.ITimingCache) -> None:
        """Take in what the file holds now. Entries that both have stay as ours are."""
        data = self._read()
        if not data:
            return
        theirs = _quiet(lambda: config.create_timing_cache(data))
        if theirs is None or not _quiet(lambda: ours.combine(theirs, ignore_mismatch=False)):
            self._move_aside(data)

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _move_aside(self, data: bytes) -> None:
        aside = self.path.with_name(f"{self.path.name}.unused-{hashlib.sha256(data).hexdigest()[:8]}")
        os.replace(self.path, aside)
        _warn(
            f"TensorRT cannot use the timing cache {self.path} (damaged, or of another version or GPU); "
            f"it is now {aside.name} and a new one is begun"
        )


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


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time merges and saves. Without locks (some network file systems, Windows) it goes on all the
    same: the file is replaced whole, so at worst the timings of one of two builds are lost.
    """
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    give_up = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise TimeoutError(f"another build has held the lock of {path} for {LOCK_S:.0f} s") from None
            time.sleep(0.02)
        except OSError:
            return


def _warn(message: str) -> None:
    warnings.warn(message, TimingCacheWarning, stacklevel=3)
