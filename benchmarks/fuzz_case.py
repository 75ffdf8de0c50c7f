"""A case of `benchmarks/fuzz.py`: where it happens, and what breaks its inputs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import JUNK, broken_bytes, broken_data, mutated

from archdsl.language.text.render import to_yaml
from archdsl.language.text.yaml_text import parse

Command = list[str]

TINY = """name: tiny
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages:
  - {block: swin, depth: 2, heads: 2, window: 4, shift: true}
head: {type: classifier, classes: 2}
"""
DATA = "{type: synthetic, colours: 2, num_train: 8, num_val: 4}"


@dataclass(frozen=True)
class Place:
    """Folders of a case. Commands may change `out` and `cache`, and nothing else."""

    root: Path
    inputs: Path
    out: Path
    cache: Path
    victim: Path


class Breaker:
    """Breaks what goes through it: by a random generator, or not at all."""

    def __init__(self, rng: random.Random | None):
        self.rng = rng or random.Random(0)
        self.active = rng is not None

    def chance(self, part: float) -> bool:
        """True in this part of the cases; never while nothing may be broken."""
        return self.active and self.rng.random() < part

    def bytes(self, data: bytes) -> bytes:
        return broken_bytes(data, self.rng) if self.active else data

    def data(self, data: Any) -> Any:
        return broken_data(data, self.rng) if self.active else data

    def json(self, text: bytes) -> bytes:
        """A JSON document, broken as data or as bytes."""
        try:
            return json.dumps(self.data(json.loads(text))).encode() if self.chance(0.7) else self.bytes(text)
        except ValueError:  # it was broken before
            return self.bytes(text)

    def yaml(self, text: str) -> bytes:
        """A YAML text, broken as text, as data or as bytes."""
        way = self.rng.random()
        if not self.active or way < 0.3:
            return (mutated(text, self.rng) if self.active else text).encode("utf-8", "surrogatepass")
        if way > 0.9:
            return self.bytes(text.encode())
        found = self.data(parse(text, "valid").plain())
        try:
            return to_yaml(found).encode("utf-8", "surrogatepass")
        except (AttributeError, TypeError, ValueError):  # no mapping any more
            return repr(found).encode("utf-8", "surrogatepass")


def made(place: Place, name: str, *command: str) -> Path:
    """The folder that a valid command leaves as its --out, made once, by a process that has ended since."""
    folder = place.root / "valid" / name
    if not folder.exists():
        whole = [sys.executable, "-m", "archdsl", *command, "--out", str(folder)]
        subprocess.run(whole, stdout=subprocess.DEVNULL, check=True)
    return folder


def damage(path: Path, place: Place, breaker: Breaker) -> None:
    """Damage a file: as lines of JSON, as JSON, as YAML or as bytes; or put a link, a pipe or a folder in its place."""
    rng, raw = breaker.rng, path.read_bytes() if path.exists() else b"{}"
    if breaker.chance(0.15):
        path.unlink(missing_ok=True)
        make: Callable[[], object] = rng.choice(
            (lambda: path.symlink_to(place.victim), lambda: os.mkfifo(path), path.mkdir, lambda: path.write_bytes(b""))
        )
        make()
    elif path.suffix in (".journal", ".jsonl"):
        path.write_bytes(broken_lines(raw, breaker))
    elif path.suffix == ".json":
        path.write_bytes(breaker.json(raw))
    elif path.suffix == ".yaml":
        path.write_bytes(breaker.yaml(raw.decode()))
    else:
        path.write_bytes(breaker.bytes(raw))


def broken_lines(raw: bytes, breaker: Breaker) -> bytes:
    rng = breaker.rng
    lines = raw.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines)) if lines else 0
        match rng.randrange(7):
            case 0:
                lines[at:at] = [breaker.bytes(rng.choice(lines)) if lines else b"{}\n"]
            case 1 if lines:
                lines[at] = breaker.json(lines[at]).rstrip(b"\n") + b"\n"
            case 2 if lines:
                lines.pop(at)
            case 3 if lines:
                lines.append(lines[at])
            case 4:
                lines.append(
                    rng.choice((b"\0" * 100, b"garbage\n", b"[1]\n", b"{}\n", b'{"op_code": 4', b"\xff\n", b"\n\n"))
                )
            case 5 if lines:
                lines[-1] = breaker.bytes(lines[-1])
            case _:
                rng.shuffle(lines) if rng.random() < 0.2 else lines.insert(
                    at, json.dumps(rng.choice(JUNK[:-3])).encode() + b"\n"
                )
    return b"".join(lines)
