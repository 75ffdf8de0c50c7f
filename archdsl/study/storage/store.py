"""One study in its storage. No other module of archdsl uses the private parts of Optuna.

Of Optuna 5.0 are used here, beside its public interface: `Study._storage`, `Study._study_id`, `Trial._trial_id`,
`JournalStorage._backend`, `RDBStorage.scoped_session` and the tables of trials and their attributes. What each of them
gives: `docs/decisions/0010` and `0014`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from archdsl.errors import Place, Problem, StudyError
from archdsl.study.record import PREFIX
from archdsl.study.storage.journal import GuardedJournal
from archdsl.study.storage.locks import TIMEOUT_S, FileStudyLock, LocalStudyLock, PostgresStudyLock, StudyLock


class StudyStore:
    """Reads and writes one study: its attributes, its trials and the attributes of these.

    Keys of attributes are without archdsl's prefix. A write is durable when it returns, unless it happens while `lock`
    is held, or in a `batch`.

    Args:
        study: Optuna's object, for what Optuna offers publicly (`ask`, `sampler`)
        lock: held while a decision depends on who works on a trial
    Raises: every method raises what the storage raises; `storage_errors` makes StudyErrors of it
    """

    def __init__(self, study: optuna.Study, lock: StudyLock):
        self.study, self.lock = study, lock
        self._storage, self._study_id = study._storage, study._study_id

    # --- attributes of the study ----------------------------------------------------------------------------------

    def attributes(self) -> dict[str, Any]:
        """All attributes that archdsl has written to the study, as plain data."""
        return own_attributes(self._storage.get_study_user_attrs(self._study_id))

    def read(self, key: str) -> Any:
        """One attribute of the study; None where it was not written."""
        return self._storage.get_study_user_attrs(self._study_id).get(PREFIX + key)

    def write(self, key: str, value: Any) -> None:
        """Write one attribute of the study. value: plain data"""
        self._storage.set_study_user_attr(self._study_id, PREFIX + key, value)

    # --- trials ---------------------------------------------------------------------------------------------------

    def trials(self) -> Sequence[FrozenTrial]:
        """All trials by number, not copied: they are not to be changed."""
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def stored(self, trial: Trial) -> FrozenTrial:
        """A trial as the storage has it now."""
        return self._storage.get_trial(trial._trial_id)

    def write_trial(self, trial: Trial | FrozenTrial, values: Mapping[str, Any]) -> None:
        """Write attributes of an unfinished trial: in PostgreSQL and SQLite by one statement.

        Raises: UpdateFinishedTrialError
        """
        write_attributes(self._storage, trial._trial_id, values)

    def finish(self, trial: Trial | FrozenTrial, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Set a trial's final state and its values. Raises: UpdateFinishedTrialError

        `Study.tell` would read the trial three times more, and tell samplers, none of which learns from that.
        """
        self._storage.set_trial_state_values(trial._trial_id, state, values)

    def requeue(self, trial: Trial | FrozenTrial) -> None:
        """Make a running trial wait to be asked for again, with the parameters it has."""
        self._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """What this thread writes in the block is written together, and need not be durable when the block ends.

        It may be entered while `lock` is held or is not. In PostgreSQL the writes outside the lock are one transaction.
        """
        backend = getattr(self._storage, "_backend", None)
        if isinstance(backend, GuardedJournal):
            with backend.batch(flush=False):
                yield
        elif isinstance(self.lock, PostgresStudyLock) and isinstance(backend, RDBStorage):
            with backend.engine.connect() as connection:
                transaction = connection.begin()
                with joined(backend, connection):
                    yield
                if transaction.is_active:  # else a write was refused; those after it had their own transactions
                    transaction.commit()
        else:
            yield


def own_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that archdsl has written, by their keys without its prefix."""
    return {key.removeprefix(PREFIX): value for key, value in attributes.items() if key.startswith(PREFIX)}


def study_lock(storage: BaseStorage, name: str, timeout_s: float = TIMEOUT_S) -> StudyLock:
    """The lock of all workers of one study.

    Args: name: of the study; timeout_s: how long a worker waits for the lock
    Raises: StudyError (`storage`) for a database that archdsl has no lock for
    """
    if isinstance(storage, JournalStorage) and isinstance(storage._backend, GuardedJournal):
        journal = storage._backend
        return FileStudyLock(journal.path.with_name(f"{journal.path.name}.turns"), timeout_s, journal.batch)
    if isinstance(storage, RDBStorage):
        url = storage.engine.url
        kind = url.get_backend_name()
        if kind == "postgresql":
            return PostgresStudyLock(url, name, timeout_s, partial(joined, storage))
        if kind == "sqlite" and url.database and url.database != ":memory:":
            path = Path(url.database).absolute()
            return FileStudyLock(path.with_name(f"{path.name}.turns"), timeout_s)
        if kind != "sqlite":
            message = f"archdsl has no lock for the workers of a study in {kind}"
            hint = "keep the study in PostgreSQL, in SQLite, or in a journal file"
            raise StudyError(Problem(Place("study"), "storage", message, hint))
    return LocalStudyLock()


@contextlib.contextmanager
def joined(storage: RDBStorage, connection: Any) -> Iterator[None]:
    """What this thread reads and writes in a storage is part of a connection's transaction.

    Optuna has a session for each thread, and commits it with every call. In the block the thread has another session,
    whose commits are left to whoever began the transaction; a rollback ends the transaction.

    Source: SQLAlchemy's "joining a session into an external transaction" (`join_transaction_mode`)
    """
    from sqlalchemy.orm import Session

    sessions = storage.scoped_session
    sessions.remove()
    sessions.registry.set(Session(bind=connection, join_transaction_mode="rollback_only"))
    try:
        yield
    finally:
        sessions.remove()


def write_attributes(storage: BaseStorage, trial_id: int, values: Mapping[str, Any]) -> None:
    """Write user attributes of a trial, each under archdsl's prefix: in PostgreSQL and SQLite by one statement.

    Optuna's public method is a transaction of two statements for each attribute, which is most of what a trial costs on
    PostgreSQL. It is used where this version of Optuna does not have the tables that are written here.

    Raises: as `BaseStorage.set_trial_user_attr`
    """
    database = getattr(storage, "_backend", None)
    keyed = {PREFIX + key: value for key, value in values.items()}
    if keyed and isinstance(database, RDBStorage) and _upsert(database, trial_id, keyed):
        return
    for key, value in keyed.items():
        storage.set_trial_user_attr(trial_id, key, value)


def _upsert(database: RDBStorage, trial_id: int, values: Mapping[str, Any]) -> bool:
    """Write attributes by one statement. Returns False where that cannot be done."""
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
