"""What a word that is not known was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

LONGEST_TYPO = 48
"""Longer words get no suggestion: they are seldom typos, and comparing takes the product of both lengths."""
LONGEST_NAME = 200
"""The same for names that a program wrote, such as those of tensors."""


def closest(word: str, names: Iterable[str], *, longest: int = LONGEST_TYPO) -> str | None:
    """The name within two edits of `word` (one, if short) or three quarters alike; None when there is none.

    Edits are insertions, deletions, changes and swaps of neighbours (Damerau 1964); likeness is
    `difflib.SequenceMatcher.ratio`. Fewest edits win, then the greatest likeness. Case, and `-` for `_`, are ignored.
    """
    if not 0 < len(word) <= longest:
        return None
    plain = word.lower().replace("-", "_")
    best: tuple[float, float, str] | None = None
    for name in names:
        if abs(len(name) - len(plain)) > 3:
            continue
        matcher = SequenceMatcher(None, plain, name.lower(), autojunk=False)
        if matcher.quick_ratio() < 0.5:
            continue
        likeness = matcher.ratio()
        edits = _edits(plain, name.lower()) if len(plain) <= LONGEST_TYPO else len(plain)
        if edits <= (1 if len(name) <= 4 else 2) or likeness >= 0.75:
            rank = (edits, -likeness, name)
            best = min(best, rank) if best else rank
    return best[2] if best else None


def did_you_mean(word: str, names: Iterable[str], *, longest: int = LONGEST_TYPO) -> str | None:
    """The hint that suggests the closest name; None when nothing is close."""
    name = closest(word, names, longest=longest)
    return f"did you mean `{name}`?" if name is not None and name != word else None


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
