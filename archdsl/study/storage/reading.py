"""A storage that is only read: nothing is created, locked, repaired or written, also not while workers run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from archdsl.errors import StudyError
from archdsl.owned import NotOurs, check_own
from archdsl.study.storage.journal import GuardedJournal
from archdsl.study.storage.journal_records import DamagedJournal, first_damage
from archdsl.study.storage.opening import refuse_strangers
from archdsl.study.storage.urls import check_storage, is_url, masked, without_secrets

_NONE = "begin a study with `archdsl search`"


def open_to_read(url_or_path: str | os.PathLike[str]) -> BaseStorage:
    """The storage at a path (a journal file) or a URL, to be read.

    A line that is being written, or was torn when a process died, is left where it is.
    Raises: StudyError when there is none, or it is damaged; no message holds a password
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(url_or_path, str):
        check_storage(url_or_path)
        if is_url(url_or_path):
            return _database(url_or_path)
    return _journal(Path(url_or_path))


def _journal(path: Path) -> BaseStorage:
    if not path.is_file():
        raise StudyError.at("RUN", str(path), "missing-file", f"there is no study at {path}", _NONE)
    try:
        refuse_strangers(path, "RUN", "give the folder of a search, or its study.journal")
        return JournalStorage(_JournalToRead(path))
    except NotOurs as error:
        raise StudyError.at("RUN", str(path), "output-folder", str(error), "give the journal itself") from error
    except (DamagedJournal, ValueError, KeyError, AttributeError, TypeError, AssertionError) as error:
        damage = first_damage(path)
        if damage is None:
            raise StudyError.at("RUN", str(path), "damaged-study", f"{path} is no journal of a study", _NONE) from error
        raise damage.error(path) from error
    except OSError as error:
        message = f"the study cannot be read: {error.strerror or error}"
        raise StudyError.at("RUN", str(path), "missing-file", message) from error


class _JournalToRead(GuardedJournal):
    """A journal that is not made, locked or mended."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        self._log_number_offset = {0: 0}
        check_own(self.path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise NotImplementedError("this study is only read")


def _database(url: str) -> BaseStorage:
    """The database, in a session that can write nothing."""
    try:
        return RDBStorage(_to_read(url), engine_kwargs=_settings(url), skip_table_creation=True)
    except StudyError:
        raise
    except Exception as error:  # SQLAlchemy, its drivers and Optuna raise a hundred kinds
        reason = without_secrets(str(error), url).strip().splitlines()
        message = f"there is no study that can be read here: {reason[0] if reason else type(error).__name__}"
        hint = "is the server up, and the name right?"
        if isinstance(error, ImportError):
            hint = "PostgreSQL needs the `dist` extra: pip install 'archdsl[dist]'"
        raise StudyError.at("RUN", masked(url), "storage", message, hint) from None


def _settings(url: str) -> dict[str, Any]:
    if url.startswith("postgres"):
        return {"pool_pre_ping": True, "connect_args": {"options": "-c default_transaction_read_only=on"}}
    return {}


def _to_read(url: str) -> str:
    """The URL by which SQLite opens its file to read, and PostgreSQL is reached by the driver of the extra `dist`."""
    for short in ("postgresql://", "postgres://"):
        if url.startswith(short):
            return f"postgresql+psycopg://{url.removeprefix(short)}"
    if not url.startswith("sqlite"):
        return url
    path = url.partition(":///")[2].partition("?")[0]
    if not path or path == ":memory:" or not Path(path).is_file():
        raise StudyError.at("RUN", url, "missing-file", f"there is no study at {path or url}", _NONE)
    return f"sqlite:///file:{quote(str(Path(path).absolute()))}?mode=ro&uri=true"
