"""What stands before the names of a state dict: `module.`, `model.`, `_orig_mod.`, `backbone.`, `ema_model.`.

A wrapper of a module puts its attribute's name before every name. Which prefix that is follows from the names: with it
taken off, more of what the network needs is there. Nothing is guessed about single tensors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from archdsl.parts.weight_names import IGNORED, WeightNames

DEEPEST = 3
"""How many names of attributes a prefix may have."""
MOST_PREFIXES = 12
"""How many prefixes are tried, the most frequent first."""
_FLAT = re.compile(r"\A([a-z]+)_([0-9]{1,6})\.")
"""timm's networks of features write `layers_0.` for `layers.0.`."""


@dataclass(frozen=True)
class Naming:
    """A library's names with a prefix.

    before: what the file has before those names, and the library has not
    lacking: what the library has before its names, and the file has not, as with a backbone alone
    """

    names: WeightNames
    before: str = ""
    lacking: str = ""

    def ours(self, name: str) -> str | None:
        """Our name of the file's tensor `name`; None when it has none."""
        found = self.names.ours(name.removeprefix(self.before))
        if found is None and self.lacking:
            found = self.names.ours(self.lacking + name)
        return found or self.names.ours(_FLAT.sub(r"\1.\2.", name.removeprefix(self.before)))

    @property
    def averaged(self) -> bool:
        """Whether the prefix says that these are moving averages."""
        return is_averaged(self.before)

    def covers(self, names: Iterable[str], needed: Collection[str]) -> int:
        """How many of the tensors that are needed are there, whole or in pieces."""
        there = {self.ours(name) for name in names if not self.averaged or name.startswith(self.before)}
        return sum(name in there or self._in_pieces(name, there) for name in needed)

    def _in_pieces(self, name: str, there: Collection[str | None]) -> bool:
        for whole, pieces in self.names.joined.items():
            before, found, after = name.rpartition(f"{whole}.")
            if found and all(f"{before}{piece}.{after}" in there for piece in pieces):
                return True
        return False

    def note(self) -> str | None:
        """What was done to the names, in a sentence; None when nothing was."""
        if self.before:
            return f"the prefix {self.before!r} was taken off the names"
        return f"the names are of a backbone alone, without {self.lacking!r}" if self.lacking else None


def naming_of(names: Collection[str], table: WeightNames, needed: Collection[str], *, ema: bool = False) -> Naming:
    """The library's names with the prefix under which most of what is needed is there; the plainest of equal ones.

    Args:
        names: of the tensors in the file
        table: the library's names
        needed: our names
        ema: prefer averages where there are some
    """
    best = Naming(table)
    most = best.covers(names, needed)
    if most == len(needed) and not ema:
        return best
    tried = [Naming(table, before=prefix) for prefix in _prefixes(names)]
    tried += [Naming(table, lacking=prefix) for prefix in sorted({_first(place) for place in table.places})]
    covered = [(naming, naming.covers(names, needed)) for naming in tried]
    averages = [(naming, count) for naming, count in covered if naming.averaged and count]
    if ema and averages:
        return max(averages, key=lambda found: found[1])[0]
    for naming, count in sorted(covered, key=lambda found: (found[0].averaged, len(found[0].before))):
        if count > most:
            best, most = naming, count
    return best


def is_averaged(name: str) -> bool:
    """Whether one of the first words of a name says that it is of moving averages: `ema_model.…`, `model_ema.…`."""
    return any("ema" in word.split("_") for word in name.split(".")[:DEEPEST])


def _prefixes(names: Iterable[str]) -> list[str]:
    """Those that several names have, the most frequent first."""
    counts: Counter[str] = Counter()
    for name in names:
        words = name.split(".")[: DEEPEST + 1]
        if words[-1] not in IGNORED:
            counts.update(".".join(words[:end]) + "." for end in range(1, len(words)))
    return [prefix for prefix, count in counts.most_common(MOST_PREFIXES) if count > 1]


def _first(place: str) -> str:
    return place.partition(".")[0] + "."
