"""A study in its storage: made, or found again and refused when it is another; what to say when the storage fails."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import BaseStorage

from archdsl.errors import Place, Problem, StudyError
from archdsl.study.plan import Plan, refuse_other
from archdsl.study.record import PREFIX
from archdsl.study.storage.opening import masked
from archdsl.study.storage.turns import Turns


def open_study(
    storage: BaseStorage,
    plan: Plan,
    turns: Turns,
    place: Place,
    *,
    start: Sequence[Mapping[str, Any]] = (),
    names: Sequence[str] = (),
    job: Mapping[str, Any] | None = None,
) -> optuna.Study:
    """The study of a plan, made when it is not there yet.

    start, names: Optuna's parameters of the designs to begin with, and what these are called; job: kept with the study
    Errors: StudyError when the study that is there was made with other settings, or not by archdsl
    """
    with turns.taken(durable=True):  # two workers that come at once make one study
        directions = [objective.direction for objective in plan.objectives]
        if plan.name in [study.study_name for study in storage.get_all_studies()]:
            study = optuna.load_study(study_name=plan.name, storage=storage)
        else:
            study = optuna.create_study(study_name=plan.name, storage=storage, directions=directions)
        attributes = study.user_attrs
        same_kind = [direction.name.lower() for direction in study.directions] == directions
        num_there = len(study.get_trials(deepcopy=False))
        if num_there or PREFIX + "plan" in attributes or not same_kind:
            refuse_other(plan, attributes.get(PREFIX + "plan"), place)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "experimental": only Optuna's dashboard shows these names
                study.set_metric_names([objective.name for objective in plan.objectives])
            study.set_user_attr(PREFIX + "plan", plan.identity())
        if job is not None and attributes.get(PREFIX + "job") != job:
            study.set_user_attr(PREFIX + "job", dict(job))
        for parameters, name in list(zip(start, names, strict=True))[num_there:]:  # a killed process enqueued some
            study.enqueue_trial(dict(parameters), user_attrs={PREFIX + "name": name})
        return study


@contextmanager
def storage_failures_told(place: Place) -> Iterator[None]:
    """What the disk or the database refuses becomes a StudyError."""
    try:
        yield
    except OSError as error:
        message = f"the study cannot be written: {error.strerror or error}"
        hint = "nothing finished is lost; make room, and the same command goes on"
        raise StudyError(Problem(place, "cannot-write", message, hint)) from error
    except Exception as error:
        if not is_of_storage(error):
            raise
        said = masked(str(error.__cause__ or error)).strip().splitlines()
        message = f"the study's storage failed: {said[0][:300] if said else type(error).__name__}"
        hint = "nothing finished is lost; when it is back, the same command goes on"
        raise StudyError(Problem(place, "storage", message, hint)) from None


def is_of_storage(error: Exception) -> bool:
    """Whether a database could not be used, rather than a network be assessed."""
    return type(error).__module__.startswith(("sqlalchemy", "optuna.exceptions"))
