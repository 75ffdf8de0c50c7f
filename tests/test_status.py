"""`status` and `report`: a study is looked at, also while workers run, and nothing of it changes."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from postgres import PASSWORD, server, why_not
from test_confirmation import Retime, Trained, again, confirmed
from test_workers import CHEAP

from archdsl.cli.main import run
from archdsl.errors import StudyError
from archdsl.language import load_space
from archdsl.language.text.quantities import time_text
from archdsl.runs.reading import OpenedSearch, open_search
from archdsl.runs.report import write_report
from archdsl.runs.search import SearchResult, search
from archdsl.runs.status import status
from archdsl.study.objectives import objective_named
from archdsl.study.record import PREFIX, read_record
from archdsl.study.storage.leases import lease_holder
from archdsl.study.storage.opening import open_storage
from archdsl.study.storage.reading import open_to_read
from archdsl.study.view import StudyView, WorkerView


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(CHEAP)
    return path


def searched(space: Path, folder: Path, trials: int = 6, **options: Any) -> SearchResult:
    return search(str(space), trials=trials, out=folder, **options)


def state_of(folder: Path) -> dict[str, tuple[int, str]]:
    """What is in a folder: each file with when it changed, and its digest."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


# --- only read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "journal", "sqlite"])
def test_a_study_is_shown_and_nothing_is_written(
    kind: str, space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/kept.db"
    result = searched(space, tmp_path / "run", storage=url if kind == "sqlite" else None)
    where = {"folder": "run", "journal": "run/study.journal", "sqlite": url}[kind]
    before = state_of(tmp_path)
    assert run(["status", where, "--json"]) == 0
    found = told(capsys)
    assert state_of(tmp_path) == before
    assert (found["study"], found["networks_evaluated"], found["networks_wanted"]) == ("cheap", 6, 6)
    assert found["trials"] == {"complete": 6} and found["workers"] == [] and not found["stop_requested"]
    assert found["front"] == json.loads(json.dumps([row.as_json() for row in result.rows]))
    assert run(["status", where]) == 0
    shown = capsys.readouterr().out
    assert "cheap: 6 of 6 networks evaluated; trials: 6 complete" in shown and result.rows[0].name in shown
    assert state_of(tmp_path) == before


def test_the_folder_of_a_search_leads_to_its_database(space: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/kept.db"
    searched(space, tmp_path / "run", storage=url)
    assert status(tmp_path / "run").num_evaluated == 6
    facts = {"study": "cheap", "storage": "postgresql://me:***@db/x"}
    (tmp_path / "run" / "search.json").write_text(json.dumps(facts))
    with pytest.raises(StudyError, match=r"is kept in postgresql://me:\*\*\*@db/x") as caught:
        status(tmp_path / "run")
    assert "with its password" in (caught.value.problems[0].hint or "")


@pytest.mark.parametrize(
    ("where", "rule", "message"),
    [
        ("nowhere", "missing-file", "there is no study at nowhere"),
        ("empty", "missing-file", "empty is not the folder of a search"),
        ("sqlite:///nowhere.db", "missing-file", "there is no study at nowhere.db"),
        ("text.txt", "output-folder", "not an Optuna journal"),
        ("sqlite:///text.txt", "storage", "no study that can be read here"),
        ("postgresql://me:s3cret@127.0.0.1:1/x", "storage", "no study that can be read here"),
        ("link", "output-folder", "link"),
        ("other.journal", "unknown-name", "there is no study here that archdsl has begun"),
    ],
)
def test_where_there_is_no_study_none_is_made(
    where: str, rule: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if where.startswith("postgresql"):
        pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("this is a letter\n")
    (tmp_path / "link").symlink_to(tmp_path / "text.txt")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("other.journal"))
    optuna.create_study(study_name="of somebody else", storage=storage)
    before = state_of(tmp_path)
    for verb in ("status", "report"):
        assert run([verb, where, "--json"]) == 1
        (problem,) = told(capsys)["errors"]
        assert problem["rule"] == rule and message in problem["message"], problem
        assert "s3cret" not in json.dumps(problem)
    assert state_of(tmp_path) == before and not (tmp_path / "runs").exists()


def test_of_several_studies_one_is_named(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/kept.db"
    for name in ("one", "two"):
        space.write_text(CHEAP.replace("name: cheap", f"name: {name}"))
        searched(space, tmp_path / name, 2, storage=url)
    with pytest.raises(StudyError, match="several studies are kept here"):
        status(url)
    assert status(url, "two").study == "two" and status(tmp_path / "one").study == "one"
    assert run(["status", url, "--study", "tow"]) == 1
    assert "did you mean `two`" in capsys.readouterr().err


def test_a_line_that_is_being_written_is_left_where_it_is(space: Path, tmp_path: Path) -> None:
    searched(space, tmp_path / "run")
    journal = tmp_path / "run" / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":6,"worker_id":"w","trial')
    before = state_of(tmp_path)
    assert status(tmp_path / "run").num_evaluated == 6
    assert state_of(tmp_path) == before
    journal.write_bytes(whole.replace(b'{"op_code":4', b"garbage", 1))
    before = state_of(tmp_path)
    with pytest.raises(StudyError, match=r"study\.journal:\d+:1: the journal is damaged here"):
        status(tmp_path / "run")
    assert state_of(tmp_path) == before


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_study_in_postgresql_is_only_read(space: Path, tmp_path: Path, postgresql: str) -> None:
    with pytest.raises(StudyError) as caught:
        status(postgresql)
    assert PASSWORD not in str(caught.value), "no tables yet, and none are made"
    with pytest.raises(StudyError):
        status(postgresql)
    searched(space, tmp_path / "run", storage=postgresql)
    assert status(postgresql).num_evaluated == 6 and PASSWORD not in json.dumps(status(postgresql).as_json())
    storage = open_search(postgresql)
    assert storage.view.records and "***" in storage.storage
    with pytest.raises(optuna.exceptions.StorageInternalError):
        open_to_read(postgresql).set_study_user_attr(1, "x", 1)


def test_a_sqlite_study_that_is_open_to_be_read_cannot_be_written(space: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/kept.db"
    searched(space, tmp_path / "run", storage=url)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        open_to_read(url).set_study_user_attr(1, "x", 1)
    with sqlite3.connect(f"{tmp_path}/kept.db") as database:
        assert database.execute("select count(*) from trials").fetchone()[0] == 6


# --- what is said ---------------------------------------------------------------------------------------------------


def trial(number: int, minute: float, state: TrialState = TrialState.COMPLETE, **attributes: Any) -> FrozenTrial:
    """A trial that ended so many minutes after the first, or runs."""
    made = create_trial(
        state=state,
        values=[1.0] if state == TrialState.COMPLETE else None,
        user_attrs={f"{PREFIX}{key}": value for key, value in attributes.items()},
        params={"x": 0.5},
        distributions={"x": FloatDistribution(0, 1)},
    )
    made.number = number
    made.datetime_start = datetime(2026, 1, 1)
    made.datetime_complete = datetime(2026, 1, 1) + timedelta(minutes=minute) if state.is_finished() else None
    return made


def view(trials: list[FrozenTrial], **attributes: Any) -> StudyView:
    records = tuple(map(read_record, trials))
    return StudyView("s", attributes, (objective_named("params"),), records, trials)


def test_the_rate_is_that_of_the_last_half_hour() -> None:
    before = [trial(number, number) for number in range(10)]
    lately = [trial(10 + number, 600 + 6 * number) for number in range(5)]
    seen = view([*before, *lately], budget={"trials": 35, "until": None, "stop": None})
    assert seen.an_hour == pytest.approx(10.0), "one in six minutes"
    assert seen.left_s == pytest.approx(20 * 360)
    assert view(before[:1]).an_hour is None and view([]).an_hour is None and view([]).left_s is None
    assert view(before, job={"trials": 4}).left_s == 0, "more than were asked for"


def test_what_evaluates_nothing_counts_in_no_rate() -> None:
    trials = [
        trial(0, 0),
        trial(1, 6),
        trial(2, 7, cheap=True),
        trial(3, 8, TrialState.FAIL, rule="crash"),
        trial(4, 12),
    ]
    seen = view(trials)
    assert len(seen.evaluated) == 4 and seen.an_hour == pytest.approx(3 / 0.2)
    assert seen.by_state == {"complete": 4, "failed": 1}


def test_workers_live_while_their_leases_hold() -> None:
    now = time.time()
    ours = lease_holder("a", now, 60.0)
    elsewhere = {**ours, "host": "another", "pid": 7}
    gone = {**ours, "pid": 2**22 - 1}
    expired = {**elsewhere, "pid": 8, "lease_until": now - 1000}
    holders = [ours, ours, elsewhere, gone, expired]
    trials = [trial(n, 0, TrialState.RUNNING, owner=holder) for n, holder in enumerate(holders)]
    seen = view([*trials, trial(5, 0, TrialState.WAITING)])
    workers = seen.workers(now)
    assert [(one.host, one.pid, one.trials) for one in workers if one.is_alive] == sorted(
        [("another", 7, (2,)), (ours["host"], os.getpid(), (0, 1))]
    )
    assert {one.pid for one in workers if not one.is_alive} == {8, gone["pid"]}
    assert seen.by_state == {"running": 5, "waiting": 1}


def test_the_lines_say_who_works_and_how_long_it_takes(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(space, tmp_path / "run")
    workers = [WorkerView("here", 12, (3, 4), True), WorkerView("there", 13, (5,), False)]
    monkeypatch.setattr(StudyView, "workers", lambda self: workers)
    monkeypatch.setattr(StudyView, "num_wanted", property(lambda self: 100))
    monkeypatch.setattr(StudyView, "an_hour", property(lambda self: 47.0))
    assert run(["status", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "6 of 100 networks evaluated" in shown and "47 networks an hour lately, about 2 h 0 min left" in shown
    assert "worker 12 on here evaluates trial 3, 4" in shown
    assert "worker 13 on there left trial 5: its lease has run out" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (36_000, "10 h"),
     (190_000, "2 d 4 h")],
)  # fmt: skip
def test_a_time_has_about_two_digits(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


# --- the page -------------------------------------------------------------------------------------------------------


def test_a_report_is_the_page_that_the_search_has_written(space: Path, tmp_path: Path) -> None:
    searched(space, tmp_path / "run")
    files = ("front.csv", "front.svg")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in files}
    page = (tmp_path / "run" / "report.html").read_text()
    (tmp_path / "run" / "report.html").unlink()
    written = write_report(tmp_path / "run")
    assert (written.study, written.num_trials) == ("cheap", 6) and written.page == tmp_path / "run" / "report.html"
    assert {name: (tmp_path / "run" / name).read_bytes() for name in files} == before

    def without(text: str) -> str:  # plotly names its figures at random, and why a sampler was taken is not stored
        return text.split("</script>", 1)[1].split('<div class="plot">')[0].replace("as asked", "as the study says")

    assert without(written.page.read_text()) == without(page)


def test_a_page_goes_where_it_is_asked_for_and_not_into_somebody_elses_folder(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    searched(space, tmp_path / "run")
    assert run(["report", "run/study.journal", "--out", "page", "--json"]) == 0
    found = told(capsys)
    assert (found["page"], found["trials"]) == ("page/report.html", 6)
    assert {path.name for path in (tmp_path / "page").iterdir()} >= {"report.html", "front.csv", "front.svg"}
    assert run(["report", "run", "--out", "page"]) == 0, "a page of ours is written anew"
    assert status("page").num_evaluated == 6, "its folder leads to the study"
    capsys.readouterr()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("hello")
    assert run(["report", "run", "--out", "mine"]) == 1
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_values_that_were_taken_again_are_the_ones_that_are_shown(tmp_path: Path) -> None:
    outcome = confirmed(tmp_path, again(Retime()), training=Trained())
    assert open_storage(tmp_path / "study.journal")
    opened = open_search(tmp_path / "study.journal")
    known = opened.view.known({})
    assert known == outcome.known and any(record.is_confirmed for record in known)


def test_a_page_follows_a_search_until_its_end(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(space, tmp_path / "run", 3)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        searched(space, tmp_path / "run", 5)

    monkeypatch.setattr("archdsl.cli.report.time.sleep", nap)
    monkeypatch.setattr(StudyView, "num_wanted", property(lambda self: 5))
    assert run(["report", str(tmp_path / "run"), "--watch", "--every", "2s"]) == 0
    shown = capsys.readouterr()
    assert naps == [2.0] and "5 networks evaluated: written to" in shown.err and "5 trials" in shown.out


def test_a_study_that_archdsl_did_not_begin_says_so(tmp_path: Path, space: Path) -> None:
    searched(space, tmp_path / "run")
    opened = open_search(tmp_path / "run")
    assert load_space(space).name == opened.space.name
    bare = StudyView("s", {"plan": {}}, (), (), ())
    with pytest.raises(StudyError, match="does not say which space it searches"):
        _ = OpenedSearch(bare, "x", None).space
