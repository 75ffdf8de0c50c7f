"""Writing several attributes of a trial at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage, RDBStorage

from archdsl.study.record import PREFIX


def write_attributes(storage: BaseStorage, trial_id: int, values: Mapping[str, Any]) -> None:
    """Write user attributes of a trial, each under our prefix: in a database as one transaction.

    Optuna's public way is a transaction for each, which is most of what a trial costs on PostgreSQL. Where this Optuna
    does not have the parts that it is made of, that way is taken.
    Errors: as `BaseStorage.set_trial_user_attr`
    """
    database = getattr(storage, "_backend", None)
    if len(values) > 1 and isinstance(database, RDBStorage) and hasattr(database, "_set_trial_attr_without_commit"):
        from optuna.storages._rdb.models import TrialUserAttributeModel
        from optuna.storages._rdb.storage import _create_scoped_session

        with _create_scoped_session(database.scoped_session) as session:
            for key, value in values.items():
                database._set_trial_attr_without_commit(session, TrialUserAttributeModel, trial_id, PREFIX + key, value)
        return
    for key, value in values.items():
        storage.set_trial_user_attr(trial_id, PREFIX + key, value)
