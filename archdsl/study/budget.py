"""What the leader of a search says to all who work on it: how many networks, until when, and whether to stop."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import optuna

from archdsl.study.record import PREFIX

_KEY = PREFIX + "budget"


def say_budget(study: optuna.Study, trials: int, until: float | None) -> None:
    """Say how many networks are paid for, and when the search ends, in seconds since 1970; this ends an older stop."""
    study.set_user_attr(_KEY, {"trials": trials, "until": until, "stop": None})


def heard_budget(study: optuna.Study) -> Mapping[str, Any]:
    """What was said last: `trials`, `until`, and `stop`, a word that is another each time; empty before."""
    said = study._storage.get_study_user_attrs(study._study_id).get(_KEY)
    return said if isinstance(said, Mapping) else {}


def stop_all(study: optuna.Study) -> None:
    """Tell every worker of a study, wherever it runs, to end within seconds."""
    study.set_user_attr(_KEY, {**heard_budget(study), "stop": secrets.token_hex(4)})
