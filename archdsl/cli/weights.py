"""What --weights and the options about it name, for commands that start from a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.cli.output import say
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.language.architecture.model import Spec

if TYPE_CHECKING:
    from archdsl.weights.importing import ImportedWeights


def unused_weights_options(
    weights: Path | None, source: str | None, *, allow_pickle: bool, ema: bool, new_head: bool
) -> list[Problem]:
    """One problem for each option about a weights file, where there is none."""
    given = [("--from", source or "", bool(source)), ("--allow-pickle", "", allow_pickle)]
    given += [("--ema", "", ema), ("--new-head", "", new_head)]
    return [
        Problem(
            at_argument(option, got),
            "missing-key",
            f"{option} is about a weights file, and there is none",
            "name the file with --weights",
        )
        for option, got, wanted in given
        if wanted and weights is None
    ]


def weights_of(
    spec: Spec, weights: Path | None, source: str | None, *, allow_pickle: bool, ema: bool, new_head: bool, seed: int
) -> ImportedWeights | None:
    """What the options name, with a note on stderr for each choice; None without a file.

    Raises: ArchError for options without a file; WeightsError
    """
    if problems := unused_weights_options(weights, source, allow_pickle=allow_pickle, ema=ema, new_head=new_head):
        raise ArchError(problems)
    if weights is None:
        return None
    from archdsl.weights.from_file import weights_from_file

    found = weights_from_file(
        spec, weights, source or "archdsl", allow_pickle=allow_pickle, ema=ema, new_head=new_head, seed=seed
    )
    for note in found.notes:
        say(f"note: {note}", err=True)
    return found
