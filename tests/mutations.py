"""Broken versions of valid inputs: texts, bytes, and the data in YAML and JSON files. All follow from a seed."""

# ruff: noqa: E501

from __future__ import annotations

import copy
import random
import re
from typing import Any

PIECES = (
    "{", "}", "[", "]", ":", ": ", ",", ", ", "- ", "\n", "\n  ", "#", "'", '"', "&a ", "*a", "!", "!!int ", "|", ">", "%",
    "@", "`", "?", "? ", "<<: ", "---\n", "...\n", "\t", "\0", "\ufeff", "\u2028", "\x85", "é", "🙂", "null", "true", "1e999",
    ".nan", "-", "0x", "0o9", "9" * 30, "1_000", "100M", "stages: ", "depth: 1000000000", "block: ", "type: ", "~",
    "extends: x\n", "defaults: ", "heads: ", "[[[[[[[[", "{a: " * 5, "\\", '"\\ud800"', "blocks: ", "name: ", "downsample: ", "-1", "0",
    "x",
)  # fmt: skip


def mutated(text: str, rng: random.Random) -> str:
    """A text with one to four random edits."""
    for _ in range(rng.randint(1, 4)):
        at, until = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        match rng.randrange(7):
            case 0:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[min(until, at + rng.randint(1, 8)) :]
            case 2:
                text = text[:at] + rng.choice(PIECES) + text[at + rng.randint(1, 6) :]
            case 3:
                text = text[:until] + text[at : min(until, at + 60)] + text[until:]
            case 4:
                lines = text.split("\n")
                rng.shuffle(lines) if rng.random() < 0.2 else lines.pop(rng.randrange(len(lines)))
                text = "\n".join(lines)
            case 5:
                text = (
                    text[:at] + chr(rng.choice((0, 7, 9, 127, 133, 160, 8232, 55296, 65279, 65535, 128512))) + text[at:]
                )
            case _:
                words = list(re.finditer(r"[A-Za-z0-9_.]+", text))
                if len(words) > 1:
                    one, other = rng.choice(words), rng.choice(words)
                    text = text[: one.start()] + other.group() + text[one.end() :]
    return text


JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 10**30, 10**309, 0.5, -0.0, 1e-300, 1e308, float("inf"),
    float("nan"), "", " ", "x", "1", "nan", "../../victim", "/etc/passwd", "a\nb", "\x1b[31mred", "\u202e", "\ud800",
    "🙂" * 20, "a" * 5000, "%s{0}", "=1+1", "<script>", [], {}, [[]], [None], [1, 2, 3], {"a": 1}, {"": []}, {"__class__": "x"}, "*",
    "a.b.c",
)  # fmt: skip


def spots(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in the data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(spot for key, value in items for spot in spots(value, (*path, key)))]


def nested(depth: int, rng: random.Random) -> Any:
    """A list in a list, or a mapping in a mapping, `depth` times."""
    found: Any = 1
    for _ in range(depth):
        found = [found] if rng.random() < 0.5 else {"a": found}
    return found


def broken_data(data: Any, rng: random.Random) -> Any:
    """The data with one to three things replaced by junk, lost, renamed, doubled, exchanged or nested."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [spot for spot in spots(data) if spot]
        if not places:
            return rng.choice(JUNK)
        path, other = rng.choice(places), rng.choice(places)
        above = _at(data, path[:-1])
        match rng.randrange(8):
            case 0:
                del above[path[-1]]
            case 1 if isinstance(above, dict):
                above[rng.choice(("", "x", path[-1] + "s", "name", "\x1b[2J", "a" * 500))] = above.pop(path[-1])
            case 2 if isinstance(above, list):
                above.extend(copy.deepcopy(above[path[-1]]) for _ in range(rng.choice((1, 2, 300))))
            case 3:
                above[path[-1]] = copy.deepcopy(_at(data, other))
            case 4:
                above[path[-1]] = nested(rng.choice((2, 20, 150)), rng)
            case 5 if isinstance(above[path[-1]], int | float):
                above[path[-1]] *= rng.choice((-1, 0, 0.5, 2, 3, 1000, 10**12))
            case _:
                above[path[-1]] = copy.deepcopy(rng.choice(JUNK))
    return data


def broken_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four of them flipped, cut off, overwritten, taken from elsewhere or put in."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        near_start = rng.random() < 0.5
        at = rng.randrange(min(len(found), 200) if near_start else len(found)) if found else 0
        length = rng.choice((1, 2, 4, 8, 40, 400))
        match rng.randrange(7):
            case 0:
                del found[at:]
            case 1:
                found[at : at + length] = rng.randbytes(length)
            case 2:
                found[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
            case 3:
                start = rng.randrange(len(found) + 1)
                found[at:at] = found[start : start + length]
            case 4:
                del found[at : at + length]
            case _ if found:
                found[at] ^= 1 << rng.randrange(8)
            case _:
                found += rng.randbytes(8)
    return bytes(found)


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        data = data[part]
    return data
