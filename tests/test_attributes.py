"""Writing several attributes of a trial at once: what stands afterwards is the same in every storage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError

from archdsl.study.storage.opening import open_storage
from archdsl.study.storage.store import write_attributes

VALUES: dict[str, Any] = {"a": 1, "b": {"c": [1.5, None]}, "d": "ü", "e": None}


@pytest.fixture(params=["journal", "sqlite"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    place = str(tmp_path / "s.journal") if request.param == "journal" else f"sqlite:///{tmp_path}/s.db"
    return optuna.create_study(study_name="s", storage=open_storage(place))


def kept(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.user_attrs for trial in study.get_trials()]


def named(values: dict[str, Any]) -> dict[str, Any]:
    return {f"archdsl:{key}": value for key, value in values.items()}


def test_attributes_are_written_and_written_over(study: optuna.Study) -> None:
    one, other = study.ask(), study.ask()
    write_attributes(study._storage, one._trial_id, {"a": 0, "z": 9})
    write_attributes(study._storage, one._trial_id, VALUES)
    write_attributes(study._storage, other._trial_id, {"b": 2})
    write_attributes(study._storage, other._trial_id, {})
    assert kept(study) == [named({**VALUES, "z": 9}), named({"b": 2})]


def test_a_finished_trial_keeps_what_it_has(study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        write_attributes(study._storage, trial._trial_id, VALUES)
    assert kept(study) == [{}]


def test_a_trial_that_is_not_there_is_an_error(study: optuna.Study) -> None:
    with pytest.raises(KeyError):
        write_attributes(study._storage, 7, VALUES)


def test_in_a_database_all_are_one_transaction(tmp_path: Path) -> None:
    sent = statements(tmp_path)
    assert [text.split()[0] for text in sent] == ["SELECT", "INSERT"]


def test_where_optuna_has_other_tables_its_own_way_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna.storages._rdb.models", None)
    assert len(statements(tmp_path)) > 2


def statements(folder: Path) -> list[str]:
    """What is sent to a database while attributes are written to a trial; they stand there afterwards."""
    from sqlalchemy import event

    storage = open_storage(f"sqlite:///{folder}/s.db")
    study = optuna.create_study(study_name="s", storage=storage)
    trial = study.ask()
    sent: list[str] = []
    note = lambda connection, cursor, statement, *more: sent.append(statement)  # noqa: E731
    event.listen(storage.engine, "before_cursor_execute", note)  # type: ignore[attr-defined]
    write_attributes(study._storage, trial._trial_id, VALUES)
    event.remove(storage.engine, "before_cursor_execute", note)  # type: ignore[attr-defined]
    assert kept(study) == [named(VALUES)]
    return sent
