"""What must stay the same when a study is resumed, and how to say what did not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archdsl.errors import Place, Problem, StudyError
from archdsl.study.objectives import Objective

_MOST_SHOWN = 12


@dataclass(frozen=True)
class Plan:
    """One campaign.

    name: of the study in its storage; objectives: in the order of the values
    trials: how many networks are paid for; more may be asked for when a study is resumed
    seed: decides all proposals; sampler: a name of `SAMPLERS`, and why it was taken
    time_limit_s: no trial begins that would probably end later; None for no limit
    patience: the search ends when so many networks in a row brought no gain beyond noise; None: it goes on
    fixed: everything else that decides the values (space, recipe, data, target), as plain data
    """

    name: str
    objectives: tuple[Objective, ...]
    trials: int
    seed: int
    sampler: str
    why: str = "as asked"
    time_limit_s: float | None = None
    fixed: Mapping[str, Any] | None = None
    patience: int | None = None

    def identity(self) -> dict[str, Any]:
        """What a resumed study must have in common with this one, as JSON gives it back."""
        names = [objective.name for objective in self.objectives]
        mine = {"objectives": names, "seed": self.seed, "sampler": self.sampler, **(self.fixed or {})}
        plain: dict[str, Any] = json.loads(json.dumps(mine))
        return plain


def refuse_other(plan: Plan, stored: Any, place: Place) -> None:
    """Raise StudyError when the stored study is another one than `plan`; the message lists the differences."""
    if not isinstance(stored, Mapping):
        message = f"there is already a study {plan.name!r} in this storage, and archdsl did not make it"
        raise StudyError(Problem(place, "other-study", message, "use another --out or --storage"))
    differences = _differences(stored, plan.identity())
    if not differences:
        return
    shown = [f"    {line}" for line in differences[:_MOST_SHOWN]]
    if len(differences) > _MOST_SHOWN:
        shown.append(f"    … and {len(differences) - _MOST_SHOWN} more")
    message = "the study that is here was made with other settings (then -> now):\n" + "\n".join(shown)
    hint = "keep both with --out another-dir, or start anew with --fresh"
    raise StudyError(Problem(place, "other-study", message, hint))


def _differences(then: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = list(dict.fromkeys([*then, *now]))
        return [
            line
            for key in keys
            for line in _differences(_at(then, key), _at(now, key), f"{path}.{key}" if path else key)
        ]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [
            line for i, (a, b) in enumerate(zip(then, now, strict=True)) for line in _differences(a, b, f"{path}.{i}")
        ]
    return [] if then == now else [f"{path}: {_shown(then)} -> {_shown(now)}"]


_NOTHING = object()


def _at(mapping: Mapping[str, Any], key: str) -> Any:
    return mapping.get(key, _NOTHING)


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "(nothing)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"
