"""Runtimes name their ops after ours with something put behind (`…attn.attend/Softmax`, `stem.proj_nchwc`)."""

from __future__ import annotations

from collections.abc import Iterable

ENDS = "/._:"
"""What may follow a name of ours; so `blocks.1` is no beginning of `blocks.10`."""


class KnownNames:
    """Finds the name of ours that another begins with."""

    def __init__(self, names: Iterable[str]):
        self._names = frozenset(names)

    def find(self, name: str) -> str | None:
        """The longest known name that `name` is or begins with; None when there is none."""
        if name in self._names:
            return name
        for end in range(len(name) - 1, 0, -1):
            if name[end] in ENDS and name[:end] in self._names:
                return name[:end]
        return None
