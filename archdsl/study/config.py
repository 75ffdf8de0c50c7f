"""What must stay the same when a study is resumed, and how to say what did not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archdsl.errors import Place, Problem, StudyError
from archdsl.study.objectives import Objective

FINGERPRINT = "fingerprint"
"""Under `accuracy` of what a study must share: which images its data hold. Studies of older versions have none."""

_MOST_SHOWN = 12
_NOTHING = object()


@dataclass(frozen=True)
class StudyConfig:
    """The settings of one study.

    name: of the study in its storage; objectives: in the order of the values
    trials: number of networks to evaluate; it may be larger when a study is resumed
    seed: decides all proposals; sampler: a name of `SAMPLERS`; why: the reason for it
    time_limit_s: no trial begins that would probably end later, in seconds from the start; None for no limit
    patience: the search ends when so many networks in a row brought no gain beyond noise; None: never
    fixed: everything else that the values depend on (space, recipe, data, target), as plain data
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


def with_fingerprint(stored: Any, config: StudyConfig) -> Any:
    """What an older version stored of a study, with the fingerprint of the data that are here now."""
    present = config.identity().get("accuracy", {}).get(FINGERPRINT)
    then = stored.get("accuracy") if isinstance(stored, Mapping) else None
    if present is None or not isinstance(then, Mapping) or FINGERPRINT in then:
        return stored
    return {**stored, "accuracy": {**then, FINGERPRINT: present}}


def refuse_other(config: StudyConfig, stored: Any, place: Place) -> None:
    """Raise StudyError when the stored study is another one than `config`; the message lists the differences."""
    if not isinstance(stored, Mapping):
        message = f"there is already a study {config.name!r} in this storage, and archdsl did not make it"
        raise StudyError(Problem(place, "other-study", message, "use another --out or --storage"))
    found = differences(stored, config.identity())
    if not found:
        return
    shown = [f"\n    {line}" for line in found[:_MOST_SHOWN]]
    if len(found) > _MOST_SHOWN:
        shown.append(f"\n    … and {len(found) - _MOST_SHOWN} more")
    lines = f" {found[0]}" if len(found) == 1 else "".join(shown)
    message = f"the study that is here was made with other settings (then -> now):{lines}"
    hint = "keep both with --out another-dir, or start anew with --fresh"
    raise StudyError(Problem(place, "other-study", message, hint))


def differences(then: Any, now: Any, path: str = "") -> list[str]:
    """Where two pieces of plain data differ, each as `path: then -> now`."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = list(dict.fromkeys([*then, *now]))
        return [
            line
            for key in keys
            for line in differences(then.get(key, _NOTHING), now.get(key, _NOTHING), f"{path}.{key}" if path else key)
        ]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [
            line for i, (a, b) in enumerate(zip(then, now, strict=True)) for line in differences(a, b, f"{path}.{i}")
        ]
    return [] if then == now else [f"{path}: {_shown(then)} -> {_shown(now)}"]


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "(nothing)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"
