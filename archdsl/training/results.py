"""Finished training runs on disk, so that no network is trained twice with one seed and recipe."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any, Protocol

from archdsl import jsonl


class ResultStore(Protocol):
    """Finished trainings by key. A dict is one."""

    def get(self, key: str, /) -> dict[str, Any] | None: ...
    def __setitem__(self, key: str, value: dict[str, Any], /) -> None: ...


class JsonLines:
    """Results in a JSON-lines file that is only appended to; several processes may use it at once.

    A line holds the key, the value and their checksum. A torn or damaged line is a miss, never an error: its network is
    trained again. The last line of a key wins.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._known: dict[str, dict[str, Any]] = {}
        self._read_bytes = 0

    def get(self, key: str, /) -> dict[str, Any] | None:
        if key not in self._known:
            self._read_new_lines()
        return self._known.get(key)

    def all(self) -> dict[str, dict[str, Any]]:
        """All results by key."""
        self._read_new_lines()
        return dict(self._known)

    def __setitem__(self, key: str, value: dict[str, Any], /) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        jsonl.append(self.path, {"key": key, "value": value, "check": _checksum(key, value)})
        self._known[key] = value

    def _read_new_lines(self) -> None:
        """Read what was appended since the last call; a last line without its end is left for the next one."""
        records, self._read_bytes, _ = jsonl.read(self.path, self._read_bytes)
        for record in records:
            match record:
                case {"key": str(key), "value": dict(value), "check": check} if check == _checksum(key, value):
                    self._known[key] = value


def _checksum(key: str, value: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps([key, value], sort_keys=True).encode())
