"""Writing several attributes of a trial at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage, RDBStorage

from archdsl.study.record import PREFIX


def write_attributes(storage: BaseStorage, trial_id: int, values: Mapping[str, Any]) -> None:
    """Write user attributes of a trial, each under our prefix: in PostgreSQL and SQLite by one statement.

    Optuna's public way is a transaction of two statements for each, which is most of what a trial costs on PostgreSQL.
    Where this Optuna does not have the tables that are written here, that way is taken.
    Errors: as `BaseStorage.set_trial_user_attr`
    """
    database = getattr(storage, "_backend", None)
    keyed = {PREFIX + key: value for key, value in values.items()}
    if keyed and isinstance(database, RDBStorage) and _write_at_once(database, trial_id, keyed):
        return
    for key, value in keyed.items():
        storage.set_trial_user_attr(trial_id, key, value)


def _write_at_once(database: RDBStorage, trial_id: int, values: Mapping[str, Any]) -> bool:
    """Write them by one statement, where that can be done. -> whether it could"""
    from sqlalchemy import select
    from sqlalchemy.dialects import postgresql, sqlite

    try:
        from optuna.storages._rdb.models import NOT_FOUND_MSG, TrialModel, TrialUserAttributeModel
        from optuna.storages._rdb.storage import _create_scoped_session
    except ImportError:
        return False
    dialect = {"postgresql": postgresql, "sqlite": sqlite}.get(database.engine.name)
    if dialect is None:
        return False
    table = TrialUserAttributeModel
    insert = dialect.insert(table)
    replace = {"value_json": insert.excluded.value_json}
    upsert = insert.on_conflict_do_update(index_elements=[table.trial_id, table.key], set_=replace)
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in values.items()]
    with _create_scoped_session(database.scoped_session) as session:
        state = session.scalar(select(TrialModel.state).where(TrialModel.trial_id == trial_id))
        if state is None:
            raise KeyError(NOT_FOUND_MSG)
        database.check_trial_is_updatable(trial_id, state)
        session.execute(upsert, rows)
    return True
