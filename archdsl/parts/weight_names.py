"""How other libraries name the tensors of a network. The tables stand beside the blocks of each family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

IGNORED = frozenset({"relative_position_index", "attn_mask", "num_batches_tracked", "n_averaged"})
"""Last names of tensors that are no weights: tables and masks that we make ourselves, and counters."""


@dataclass(frozen=True)
class WeightNames:
    """The names of one library for the tensors of one family's networks.

    In patterns `{i}` stands for a whole number and `{i+1}` for the next one; `{2i}` and `{2i+1}` stand for an even and
    an odd number, of which `{i}` is half. A pattern that does not end in a dot must fit the whole name.

    places: the start of a name -> ours; the first pattern that fits is replaced
    parts:  the rest of the name -> ours, in the same way
    joined: our tensors that the library holds in pieces, which are stacked along the first axis
    by_head: our norms of q, k and v whose channels, with the rows of the linear before, the library holds head by head
    """

    places: Mapping[str, str]
    parts: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by_head: tuple[str, ...] = ()

    def ours(self, name: str) -> str | None:
        """Our name of the library's tensor `name`; None when no pattern fits it."""
        for pattern, ours in self.places.items():
            place = _replaced(pattern, ours, name)
            if place is not None:
                start, rest = place
                renamed = (_replaced(part, mine, rest) for part, mine in self.parts.items())
                part, end = next((found for found in renamed if found is not None), ("", rest))
                return start + part + end
        return None


def _replaced(pattern: str, ours: str, name: str) -> tuple[str, str] | None:
    """The start of `name` replaced, and the rest of it; None when the pattern does not fit."""
    found = _compiled(pattern).match(name)
    if found is None:
        return None
    numbers = {key.lower(): int(value) // (2 if key.isupper() else 1) for key, value in found.groupdict().items()}
    filled = re.sub(r"\{(\w)(\+1)?\}", lambda hole: str(numbers[hole[1]] + bool(hole[2])), ours)
    return filled, name[found.end() :]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>[0-9]{1,6})", re.escape(pattern))
    text = re.sub(r"\\\{2(\w)(\\\+1)?\\\}", _half, text)
    return re.compile(text if pattern.endswith(".") else text + r"\Z")


def _half(hole: re.Match[str]) -> str:
    """The group of an even or odd number; its name is in capitals, since the number counts half."""
    return f"(?P<{hole[1].upper()}>[0-9]{{0,5}}[{'13579' if hole[2] else '02468'}])"


def merged(tables: Iterable[WeightNames]) -> WeightNames:
    """One table of several, the patterns with the most text first."""
    places: dict[str, str] = {}
    parts: dict[str, str] = {}
    joined: dict[str, tuple[str, ...]] = {}
    by_head: dict[str, None] = {}
    for table in tables:
        places |= table.places
        parts |= table.parts
        joined |= table.joined
        by_head |= dict.fromkeys(table.by_head)
    return WeightNames(_longest_first(places), _longest_first(parts), joined, tuple(by_head))


def _longest_first(patterns: Mapping[str, str]) -> dict[str, str]:
    return {pattern: patterns[pattern] for pattern in sorted(patterns, key=_letters, reverse=True)}


def _letters(pattern: str) -> int:
    return len(re.sub(r"\{[^}]*\}", "", pattern))
