"""Words for people: how a list of names and a word of the user's read."""

from __future__ import annotations

from collections.abc import Iterable

from archdsl.outside_text import printable

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$"
"""What a spec, a space or a recipe may be called: a name that is fit for a file, a table and a terminal."""


def listed(names: Iterable[str], limit: int = 40) -> str:
    """`a, b, c`, cut after `limit` names."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (f", … ({len(names) - limit} more)" if len(names) > limit else "")


def number_of(count: int, thing: str) -> str:
    """`1 network`, `3 networks`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def joined(*sentences: str | None) -> str | None:
    """The sentences that are there, as one hint; None when there are none."""
    there = [sentence for sentence in sentences if sentence]
    return " ".join(there) or None


def quoted(text: str, limit: int = 60) -> str:
    """A word of the user's in backticks, cut when long, control characters shown as `\\x00`."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"`{printable(cut)}`"
