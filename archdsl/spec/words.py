"""Words for people: what was probably meant, and how a list of names reads."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_LONGEST = 48
"""Longer words get no suggestion: they are no typos, and comparing is quadratic."""


def closest(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` was probably meant to be: within two edits of a long one, one edit of a short one."""
    if not 0 < len(word) <= _LONGEST:
        return None
    plain = word.lower().replace("-", "_")
    best: tuple[float, float, str] | None = None
    for name in names:
        if abs(len(name) - len(plain)) > 3:
            continue
        matcher = SequenceMatcher(None, plain, name.lower(), autojunk=False)
        if matcher.quick_ratio() < 0.5:
            continue
        edits, likeness = _edits(plain, name.lower()), matcher.ratio()
        if edits <= (1 if len(name) <= 4 else 2) or likeness >= 0.75:
            rank = (edits, -likeness, name)
            best = min(best, rank) if best else rank
    return best[2] if best else None


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    name = closest(word, names)
    return f"did you mean `{name}`?" if name is not None and name != word else None


def listed(names: Iterable[str], limit: int = 40) -> str:
    """`a, b, c`, cut after `limit` names."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (f", … ({len(names) - limit} more)" if len(names) > limit else "")


def joined(*sentences: str | None) -> str | None:
    """The sentences that are there, as one hint; None when there are none."""
    there = [sentence for sentence in sentences if sentence]
    return " ".join(there) or None


def quoted(text: str, limit: int = 60) -> str:
    """A word of the user's in backticks, cut when long, control characters shown as `\\x00`."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    clean = "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in cut)
    return f"`{clean}`"


def _edits(a: str, b: str) -> int:
    """Insertions, deletions, changes and swaps of neighbours that turn `a` into `b`."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
