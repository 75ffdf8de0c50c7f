"""Create a study in its storage, or load it and refuse another one; the errors of a storage as StudyError."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import BaseStorage

from archdsl.errors import Place, Problem, StudyError
from archdsl.study.config import StudyConfig, refuse_other, with_fingerprint
from archdsl.study.record import PREFIX
from archdsl.study.storage.journal_records import DamagedJournal, first_damage
from archdsl.study.storage.opening import cannot_keep
from archdsl.study.storage.store import StudyStore, study_lock
from archdsl.study.storage.urls import masked


def create_or_load(
    storage: BaseStorage,
    config: StudyConfig,
    place: Place,
    *,
    start: Sequence[Mapping[str, Any]] = (),
    names: Sequence[str] = (),
    job: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> StudyStore:
    """Load the study of a configuration, or create it when it is not there.

    Args:
        place: where messages about the study point
        start, names: Optuna's parameters of the networks to begin with, and the names of these
        job: plain data that is stored with the study
        say: called with a sentence when the study is brought up to date
    Raises: StudyError (`other-study`) when the study that is there was made with other settings, or not by archdsl
    """
    lock = study_lock(storage, config.name)
    with storage_errors(place), lock.held(durable=True):  # two workers that arrive at once create one study
        directions = [objective.direction for objective in config.objectives]
        if config.name in [study.study_name for study in storage.get_all_studies()]:
            study = optuna.load_study(study_name=config.name, storage=storage)
        else:
            study = optuna.create_study(study_name=config.name, storage=storage, directions=directions)
        attributes = study.user_attrs
        same_kind = [direction.name.lower() for direction in study.directions] == directions
        num_there = len(study.get_trials(deepcopy=False))
        if num_there or PREFIX + "plan" in attributes or not same_kind:
            stored = attributes.get(PREFIX + "plan")
            refuse_other(config, known := with_fingerprint(stored, config), place)
            if known != stored:
                study.set_user_attr(PREFIX + "plan", known)
                say("the study is older than the fingerprint of data: from now on its data must be those here now")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "experimental": only Optuna's dashboard shows these names
                study.set_metric_names([objective.name for objective in config.objectives])
            study.set_user_attr(PREFIX + "plan", config.identity())
        if job is not None and attributes.get(PREFIX + "job") != job:
            study.set_user_attr(PREFIX + "job", dict(job))
        for parameters, name in list(zip(start, names, strict=True))[num_there:]:  # a killed process enqueued some
            study.enqueue_trial(dict(parameters), user_attrs={PREFIX + "name": name})
        return StudyStore(study, lock)


@contextmanager
def storage_errors(place: Place) -> Iterator[None]:
    """In the block, what the disk or the database refuses is raised as StudyError."""
    try:
        yield
    except OSError as error:
        hint = "nothing finished is lost; make room, then run the same command again"
        raise cannot_keep(error, place, hint) from error
    except DamagedJournal as error:
        damage = first_damage(error.path)
        if damage is None:
            raise
        raise damage.error(error.path) from error
    except Exception as error:
        if not is_storage_error(error):
            raise
        lines = masked(str(error.__cause__ or error)).strip().splitlines()
        message = f"the study's storage failed: {lines[0][:300] if lines else type(error).__name__}"
        hint = "nothing finished is lost; when it is back, run the same command again"
        raise StudyError(Problem(place, "storage", message, hint)) from None


def is_storage_error(error: Exception) -> bool:
    """Whether a database could not be used, rather than a network be evaluated."""
    return type(error).__module__.startswith(("sqlalchemy", "optuna.exceptions"))
