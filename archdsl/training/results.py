"""A small store of finished training runs, so that no network is trained twice: one JSON object a line."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any, Protocol


class ResultStore(Protocol):
    """What the evaluator needs of a store: a dict will do."""

    def get(self, key: str, /) -> dict[str, Any] | None: ...
    def __setitem__(self, key: str, value: dict[str, Any], /) -> None: ...


class JsonLines:
    """Results in a text file that is only ever appended to; several processes may use it at once.

    Each line holds the key, the value and their checksum, and is written with one call. A line that is torn or damaged
    is a miss, never an error: its network is trained again. The last line of a key wins.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._known: dict[str, dict[str, Any]] = {}
        self._read_bytes = 0

    def get(self, key: str, /) -> dict[str, Any] | None:
        if key not in self._known:
            self._read_new_lines()
        return self._known.get(key)

    def __setitem__(self, key: str, value: dict[str, Any], /) -> None:
        line = json.dumps({"key": key, "value": value, "check": _checksum(key, value)}, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"\n{line}\n".encode())  # the first newline closes a torn line before it
            os.fsync(file)
        finally:
            os.close(file)
        self._known[key] = value

    def _read_new_lines(self) -> None:
        """Take in what other processes appended since the last look; a last line without its end is left for later."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._read_bytes)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                if entry["check"] == _checksum(entry["key"], entry["value"]):
                    self._known[entry["key"]] = entry["value"]
            except (ValueError, KeyError, TypeError):
                continue


def _checksum(key: str, value: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps([key, value], sort_keys=True).encode())
