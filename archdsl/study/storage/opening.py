"""Where a study is kept: a guarded journal file by default, or any database that Optuna knows by its URL."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from archdsl.errors import Place, Problem, StudyError, at_argument
from archdsl.study.record import PREFIX
from archdsl.study.storage.journal import GuardedJournal
from archdsl.study.storage.turns import FileTurns, LocalTurns, PostgresTurns, Turns

_PASSWORD = re.compile(r"(://[^/:@\s]*:)[^\s]*@")
_PASSWORD_KEY = re.compile(r"([?&](?:\w*password|passwd|pwd)=)[^&\s]*", re.IGNORECASE)
_FIRST_BYTES = b'{"op_code":'
_SQLITE_WAIT_S = 60
_SETTINGS = "-c synchronous_commit=off -c idle_in_transaction_session_timeout=30000"
"""PostgreSQL need not wait for the disk at each commit: that of the turn that finishes a trial does. And a worker that
is halted in the midst of a write must not keep its rows locked for ever."""


def open_storage(url_or_path: str | os.PathLike[str]) -> BaseStorage:
    """The storage at a path (a journal file, made when it is missing) or at a URL such as `sqlite:///study.db`.

    Errors: StudyError when the file is not a journal or damaged, or the database cannot be reached. No message holds a
    password.
    """
    text = os.fspath(url_or_path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return _database(text) if "://" in text else _journal(Path(text))


def masked(text: str) -> str:
    """A text with the passwords of all URLs in it replaced by `***`."""
    return _PASSWORD_KEY.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def _journal(path: Path) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_strangers(path)
        return JournalStorage(GuardedJournal(path))
    except OSError as error:
        raise _failed(str(path), "cannot-write", f"the study cannot be kept here: {error.strerror or error}") from error
    except (ValueError, KeyError, AttributeError, TypeError, AssertionError) as error:
        raise _damaged(path, error) from error


def _refuse_strangers(path: Path) -> None:
    """Raise StudyError for anything that is there but is not a journal."""
    if path.is_symlink():
        raise _failed(str(path), "output-folder", "this is a link; a study is not written through links")
    if not path.exists():
        return
    if not stat.S_ISREG(path.stat().st_mode):
        raise _failed(str(path), "output-folder", "this is not a regular file")
    with open(path, "rb") as file:
        first = file.readline(1_000_000)
    if not first.startswith(_FIRST_BYTES[: len(first)]):
        raise _failed(str(path), "output-folder", "this file exists and is not an Optuna journal")


def _damaged(path: Path, error: Exception) -> StudyError:
    """The error for a journal with a line in the middle that makes no sense: says which."""
    found = Place(str(path))
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                json.loads(line)
            except ValueError:
                found = Place(str(path), number, 1, line.decode(errors="replace").rstrip("\n"))
                break
    message = f"the journal is damaged here ({type(error).__name__}: {str(error)[:200]})"
    hint = "delete the line to lose no more than its record, or start anew with --fresh"
    return StudyError(Problem(found, "damaged-study", message, hint))


def _database(url: str) -> BaseStorage:
    try:
        return _opened(url)
    except Exception as error:  # SQLAlchemy, its drivers and Optuna raise a hundred kinds
        reason = masked(str(error)).strip().splitlines()
        hint = "write it like sqlite:///study.db or postgresql://user:password@host/name, or give a path for a journal"
        if isinstance(error, ImportError):
            hint = "PostgreSQL needs the `dist` extra: pip install 'archdsl[dist]'"
        said = _without_password(reason[0] if reason else type(error).__name__, url)
        raise _failed(masked(url), "storage", f"the storage cannot be opened: {said}", hint) from None


def _opened(url: str) -> RDBStorage:
    """The database; its tables are made by one process at a time."""
    if url.startswith("sqlite"):
        waits = {"connect_args": {"timeout": _SQLITE_WAIT_S}}
        path = url.partition(":///")[2].partition("?")[0]
        making: Turns = FileTurns(Path(f"{path}.turns")) if path and path != ":memory:" else LocalTurns()
        with making.taken():
            return RDBStorage(url, engine_kwargs=waits)
    for short in ("postgresql://", "postgres://"):
        if url.startswith(short):  # the driver of the `dist` extra, whatever SQLAlchemy's choice is
            url = f"postgresql+psycopg://{url.removeprefix(short)}"
    if not url.startswith("postgresql"):
        return RDBStorage(url)
    from sqlalchemy import Engine, create_engine

    def make_engine(settings: str) -> Engine:
        return create_engine(url, pool_size=1, max_overflow=0, connect_args={"options": settings})

    making = PostgresTurns(make_engine, "tables of Optuna")
    try:
        with making.taken():
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "connect_args": {"options": _SETTINGS}})
    finally:
        making.close()


def _without_password(text: str, url: str) -> str:
    found = re.search(r"://[^/:@\s]*:([^\s]*)@", url)
    return text.replace(found[1], "***") if found and found[1] else text


def _failed(shown: str, rule: str, message: str, hint: str | None = None) -> StudyError:
    hint = hint or "choose another place with --storage or --out"
    return StudyError(Problem(at_argument("--storage", shown), rule, message, hint))


def forget_study(storage: BaseStorage, name: str) -> None:
    """Delete a study from a database, if it is there."""
    if name in [study.study_name for study in storage.get_all_studies()]:
        optuna.delete_study(study_name=name, storage=storage)


def attributes_of(storage: BaseStorage) -> dict[str, dict[str, Any]]:
    """What archdsl keeps about each study of a storage, by the study's name: key without our prefix -> plain data."""
    return {
        study.study_name: {
            key.removeprefix(PREFIX): value for key, value in study.user_attrs.items() if key.startswith(PREFIX)
        }
        for study in storage.get_all_studies()
    }
