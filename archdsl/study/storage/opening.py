"""Where a study is kept: a guarded journal file by default, or any database that Optuna knows by its URL."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from archdsl.errors import Place, Problem, StudyError, at_argument
from archdsl.owned import NotOurs, check_own, open_own
from archdsl.study.storage.journal import GuardedJournal
from archdsl.study.storage.journal_records import DamagedJournal, first_damage
from archdsl.study.storage.locks import FileStudyLock, LocalStudyLock, PostgresStudyLock, StudyLock
from archdsl.study.storage.store import own_attributes
from archdsl.study.storage.urls import FORM, check_storage, is_url, masked, without_secrets

_ELSEWHERE = "choose another place with --storage or --out"
_FIRST_BYTES = b'{"op_code":'
_SQLITE_WAIT_S = 60
_SETTINGS = "-c synchronous_commit=off -c idle_in_transaction_session_timeout=30000"
"""PostgreSQL need not wait for the disk at each commit: the one that finishes a trial does (`StudyLock.held`). And a
worker that is halted in the middle of a write must not keep its rows locked for ever."""


def open_storage(url_or_path: str | os.PathLike[str]) -> BaseStorage:
    """Open the storage at a path (a journal file, created when it is missing) or a URL such as `sqlite:///study.db`.

    Raises: StudyError when a text is neither (see `urls.check_storage`), the file is not a journal or damaged, or the
        database cannot be reached. No message holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not isinstance(url_or_path, str):
        return _journal(Path(url_or_path))
    check_storage(url_or_path)
    return _database(url_or_path) if is_url(url_or_path) else _journal(Path(url_or_path))


def _journal(path: Path) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_strangers(path)
        return _replayed(path)
    except OSError as error:
        raise cannot_keep(error, at_argument("--storage", str(path)), _ELSEWHERE) from error


def _replayed(path: Path) -> BaseStorage:
    """The journal, without lines at its end that cannot be replayed: they are moved to `<file>.torn`."""
    try:
        return JournalStorage(GuardedJournal(path))
    except (DamagedJournal, ValueError, KeyError, AttributeError, TypeError, AssertionError) as error:
        damage = first_damage(path)
        if damage is not None and not damage.is_at_the_end:
            raise damage.error(path) from error
        journal = GuardedJournal(path)
        journal.set_aside_what_cannot_be_replayed()
        return JournalStorage(journal)


def cannot_keep(error: OSError, place: Place, hint: str) -> StudyError:
    """What the file system refuses, as the error of a study. hint: what helps when it is not somebody else's file"""
    if isinstance(error, NotOurs):
        return StudyError(Problem(place, "output-folder", str(error), f"move it away, or {_ELSEWHERE}"))
    message = f"the study cannot be written: {error.strerror or error}"
    return StudyError(Problem(place, "cannot-write", message, hint))


def refuse_strangers(path: Path, argument: str = "--storage", hint: str = _ELSEWHERE) -> None:
    """Raise StudyError for anything that is there but is not a journal. argument: that named it; hint: a way out"""
    why = None
    if path.is_symlink():
        why = "this is a link; a study is not written through links"
    elif path.exists() and not path.is_file():
        why = "this is not a regular file"
    elif path.exists():
        with open(open_own(path), "rb") as file:
            first = file.readline(1_000_000)
        if not first.startswith(_FIRST_BYTES[: len(first)]):
            why = "this file exists and is not an Optuna journal"
    if why is not None:
        raise StudyError.at(argument, str(path), "output-folder", why, hint)


def _database(url: str) -> BaseStorage:
    try:
        return _opened(url)
    except NotOurs as error:
        raise cannot_keep(error, at_argument("--storage", masked(url)), _ELSEWHERE) from error
    except Exception as error:  # SQLAlchemy, its drivers and Optuna raise a hundred kinds
        reason = without_secrets(str(error), url).strip().splitlines()
        hint = FORM
        if isinstance(error, ImportError):
            hint = "PostgreSQL needs the `dist` extra: pip install 'archdsl[dist]'"
        message = f"the storage cannot be opened: {reason[0] if reason else type(error).__name__}"
        raise StudyError.at("--storage", masked(url), "storage", message, hint) from None


def _opened(url: str) -> RDBStorage:
    """The database. Its tables are created by one process at a time."""
    if url.startswith("sqlite"):
        waits = {"connect_args": {"timeout": _SQLITE_WAIT_S}}
        path = url.partition(":///")[2].partition("?")[0]
        lock: StudyLock = LocalStudyLock()
        if path and path != ":memory:":
            with suppress(FileNotFoundError):
                check_own(path)  # SQLite would follow a link
            lock = FileStudyLock(Path(f"{path}.turns"))
        with lock.held():
            return RDBStorage(url, engine_kwargs=waits)
    for short in ("postgresql://", "postgres://"):
        if url.startswith(short):  # the driver of the `dist` extra, whatever SQLAlchemy's choice is
            url = f"postgresql+psycopg://{url.removeprefix(short)}"
    if not url.startswith("postgresql"):
        return RDBStorage(url)
    lock = PostgresStudyLock(url, "tables of Optuna")
    try:
        with lock.held():
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "connect_args": {"options": _SETTINGS}})
    finally:
        lock.close()


def forget_study(storage: BaseStorage, name: str) -> None:
    """Delete a study from a database, if it is there."""
    if name in [study.study_name for study in storage.get_all_studies()]:
        optuna.delete_study(study_name=name, storage=storage)


def attributes_of(storage: BaseStorage) -> dict[str, dict[str, Any]]:
    """The attributes that archdsl has written to each study of a storage, by the study's name."""
    return {study.study_name: own_attributes(study.user_attrs) for study in storage.get_all_studies()}
