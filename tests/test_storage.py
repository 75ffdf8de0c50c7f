"""The guarded journal: Optuna's own conformance suite, torn writes, failing disks; and opening storages by name."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from archdsl.cli.main import run
from archdsl.errors import Place, StudyError
from archdsl.study.storage import journal
from archdsl.study.storage.journal import GuardedJournal
from archdsl.study.storage.journal_records import record_of, unreadable_end
from archdsl.study.storage.opening import forget_study, open_storage
from archdsl.study.storage.study import storage_errors
from archdsl.study.storage.urls import masked, shown, why_refused

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.promise(22)
class TestConformance(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> JournalStorage:
        return JournalStorage(GuardedJournal(tmp_path / "study.journal"))


def study_at(path: Path) -> optuna.Study:
    storage = JournalStorage(GuardedJournal(path))
    return optuna.create_study(
        study_name="s", storage=storage, load_if_exists=True, directions=["maximize", "minimize"]
    )


def add_trial(study: optuna.Study, value: float) -> None:
    trial = study.ask()
    trial.suggest_int("x", 0, 9)
    trial.set_user_attr("archdsl:hash", f"h{value}")
    study.tell(trial, [value, -value])


def finished(path: Path) -> list[float]:
    trials = study_at(path).get_trials(states=(TrialState.COMPLETE,))
    return [trial.values[0] for trial in trials]


@pytest.mark.promise(17)
def test_a_file_cut_at_any_byte_of_the_last_three_records_opens_and_goes_on(tmp_path: Path) -> None:
    whole = tmp_path / "whole.journal"
    study = study_at(whole)
    for value in range(3):
        add_trial(study, value)
    data = whole.read_bytes()
    records = data.splitlines(keepends=True)
    start = sum(map(len, records[:-3]))
    kept_whole = [sum(map(len, records[:count])) for count in range(len(records) - 3, len(records) + 1)]
    for cut in range(start, len(data) + 1):
        path = tmp_path / f"{cut}.journal"
        path.write_bytes(data[:cut])
        backend = GuardedJournal(path)
        kept = max(end for end in kept_whole if end <= cut)
        assert path.read_bytes() == data[:kept]
        torn = path.with_name(f"{path.name}.torn")
        assert (torn.read_bytes() if torn.exists() else b"") == (data[kept:cut] + b"\n" if kept < cut else b"")
        backend.append_logs([{"op_code": 1, "worker_id": "w", "study_id": 9}])
        assert len(list(GuardedJournal(path).read_logs(0))) == len(data[:kept].splitlines()) + 1
        if cut % 16 == 0:
            path.write_bytes(data[:cut])
            add_trial(study_at(path), 100.0)
            assert finished(path)[:2] == [0.0, 1.0]
            assert finished(path)[-1] == 100.0


def test_a_fragment_that_another_writer_leaves_is_cut_before_the_next_record(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = study_at(path)
    for value in range(20):
        add_trial(study, value)
        with open(path, "ab") as file:
            file.write(b'{"op_code": 5, "worker'[: value + 1])
    assert finished(path) == [float(value) for value in range(20)]
    assert len(path.with_name("study.journal.torn").read_bytes().splitlines()) == 20


@pytest.mark.promise(17)
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "short then ENOSPC", "short"])
def test_the_nth_write_fails_and_nothing_finished_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The n-th write of a run of trials fails, for every n; then the disk has room again."""
    real = os.write
    for failing in range(1, 10):  # create the study, then 4 records a trial
        path = tmp_path / f"{fault}-{failing}.journal".replace(" ", "-")
        calls = 0

        def faulty(descriptor: int, data: Any, failing: int = failing) -> int:
            nonlocal calls
            calls += 1
            if calls == failing and fault.startswith("short"):
                return real(descriptor, bytes(data)[:7])
            if calls == failing + 1 and fault == "short then ENOSPC":
                raise OSError(errno.ENOSPC, "No space left on device")
            if calls == failing and not fault.startswith("short"):
                raise OSError(getattr(errno, fault), "injected")
            return real(descriptor, data)

        done: list[float] = []
        monkeypatch.setattr(journal.os, "write", faulty)
        try:
            study = study_at(path)
            for value in range(2):
                add_trial(study, value)
                done.append(float(value))
            failed = False
        except OSError:
            failed = True
        finally:
            monkeypatch.setattr(journal.os, "write", real)
        assert failed == (fault != "short")
        assert path.read_bytes().endswith(b"\n") or not path.read_bytes(), "the failed record was taken back"
        add_trial(study_at(path), 100.0)
        assert finished(path) == [*done, 100.0]


@pytest.mark.promise(26)
def test_a_full_disk_that_cannot_even_be_truncated_is_mended_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.journal"
    study = study_at(path)
    add_trial(study, 1.0)

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(journal.os, "fsync", refuse)
    monkeypatch.setattr(journal.os, "ftruncate", refuse)
    with pytest.raises(OSError, match="injected"):
        study.ask()
    monkeypatch.undo()
    add_trial(study_at(path), 2.0)
    assert finished(path) == [1.0, 2.0]


def test_the_lock_of_a_killed_process_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    add_trial(study_at(path), 1.0)
    code = (
        "import os, sys; from archdsl.study.storage.journal import JournalLock; from pathlib import Path;"
        "JournalLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.with_name("study.journal.lock").is_symlink()
    opened = threading.Thread(target=lambda: add_trial(study_at(path), 2.0))
    opened.start()
    opened.join(timeout=2.5)
    assert not opened.is_alive()
    assert finished(path) == [1.0, 2.0]


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    """Three processes count to 600 together, reading and writing the number in two steps."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = (
        "import sys, time; from archdsl.study.storage.journal import JournalLock; from pathlib import Path\n"
        "counter, lock = Path(sys.argv[2]), JournalLock(Path(sys.argv[1]))\n"
        "for _ in range(200):\n"
        "    with lock.held():\n"
        "        number = int(counter.read_text()); time.sleep(0.0005); counter.write_text(str(number + 1))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "study.journal"), str(counter)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0] * 3
    assert counter.read_text() == "600"


def test_optunas_own_backend_reads_and_writes_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    add_trial(study_at(path), 1.0)
    plain = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    add_trial(plain, 2.0)
    add_trial(study_at(path), 3.0)
    assert [trial.values[0] for trial in plain.get_trials()] == [1.0, 2.0, 3.0]


@pytest.mark.promise(23)
def test_four_processes_append_to_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study_at(path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from test_storage import study_at, add_trial\n"
        "study = study_at(Path(sys.argv[1]))\n"
        "for value in range(8): add_trial(study, value)"
    )
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    trials = study_at(path).get_trials()
    assert sorted(trial.number for trial in trials) == list(range(32))
    assert all(trial.state == TrialState.COMPLETE for trial in trials)


NO_RECORDS = [
    b"{}\n",
    b"garbage\n",
    b"garbage",
    b"null\n[1, 2]\n\n\xff\xfe\n",
    b'{"op_code": 4}\n',
    b'{"op_code": "4", "worker_id": "w", "study_id": 0, "datetime_start": null}\n',
    b'{"op_code": 4, "worker_id": "w"}\n{"op_code": 8, "wor',
    b'{"a":' * 99_999 + b"\n",
    b"7" * 9_999 + b"\n",
    b"\x00" * 512 + b"\n",
]
"""What no replay could read."""
NOT_REPLAYED = [
    b'{"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": "yesterday"}\n',
    b'{"op_code": 5, "worker_id": "w", "trial_id": 2, "param_name": "y", "param_value_internal": 0, '
    b'"distribution": "?"}\n',
    b'{"op_code": 6, "worker_id": "w", "trial_id": [2], "state": 1, "values": [1]}\n',
    b'{"op_code": 8, "worker_id": "w", "trial_id": 2, "user_attr": {}}\n{}\n',
    b'{"op_code": 99, "worker_id": "w"}\n',
]
"""What has the form of records; Optuna's replay raises something of its own at each."""


def study_of_three(path: Path) -> optuna.Study:
    """Two trials are finished, and one runs."""
    study = study_at(path)
    for value in range(2):
        add_trial(study, value)
    study.ask()
    return study


@pytest.mark.promise(17)
@pytest.mark.parametrize("tail", [*NO_RECORDS, *NOT_REPLAYED], ids=lambda tail: tail[:40].decode(errors="replace"))
def test_what_is_appended_and_is_no_record_is_set_aside(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "study.journal"
    study_of_three(path)
    before = path.read_bytes()
    path.write_bytes(before + tail)
    open_storage(path)
    assert path.read_bytes() == before
    torn = path.with_name("study.journal.torn").read_bytes()
    assert sorted(torn.splitlines()) == sorted(tail.splitlines())
    add_trial(study_at(path), 100.0)
    assert finished(path) == [0.0, 1.0, 100.0]


@pytest.mark.promise(17)
@pytest.mark.parametrize("tail", NO_RECORDS, ids=lambda tail: tail[:40].decode(errors="replace"))
def test_what_is_appended_while_a_study_goes_on_does_not_end_it(tmp_path: Path, tail: bytes) -> None:
    """By this process or another one, whether it has appended before or only read."""
    path = tmp_path / "study.journal"
    study, other = study_at(path), study_at(path)
    for value in range(3):
        with open(path, "ab") as file:
            file.write(tail)
        assert len(other.get_trials()) == value
        add_trial(study if value % 2 else other, value)
    assert finished(path) == [0.0, 1.0, 2.0]


def test_a_line_that_is_set_aside_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "study.journal"
    study_at(path)
    with open(path, "ab") as file:
        file.write(b"a fragment")
    open_storage(path)
    assert caplog.messages == [], "a killed process leaves one; nothing was there that another wrote"
    with open(path, "ab") as file:
        file.write(b"a line\n")
    open_storage(path)
    assert caplog.messages == [f"the end of {path} could not be read, and is now in study.journal.torn"]


@pytest.mark.promise(17)
@pytest.mark.parametrize("line", [b"garbage\n", b"{}\n", NOT_REPLAYED[0], NOT_REPLAYED[4]], ids=str)
@pytest.mark.parametrize("place", [1, 2, -1])
def test_a_line_in_the_middle_is_named_and_the_study_goes_on_without_it(
    tmp_path: Path, line: bytes, place: int
) -> None:
    """An older version, or a tool of Optuna's, has appended behind it."""
    path = tmp_path / "study.journal"
    study_of_three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    number = place % len(lines) + 1
    path.write_bytes(b"".join([*lines[: number - 1], line, *lines[number - 1 :]]))
    damaged = path.read_bytes()
    with pytest.raises(StudyError, match=rf"study\.journal:{number}:1: the journal is damaged here") as caught:
        open_storage(path)
    assert path.read_bytes() == damaged
    assert caught.value.problems[0].rule == "damaged-study"
    assert f"take line {number} out of it" in (caught.value.problems[0].hint or "")
    path.write_bytes(b"".join(lines))
    open_storage(path)
    assert finished(path) == [0.0, 1.0]


@pytest.mark.parametrize("code", range(10))
def test_a_record_without_what_its_replay_reads_is_none(code: int) -> None:
    """Optuna 5.0 reads all of these; a newer Optuna may write others, which are left to it."""
    fields = {
        0: "study_name directions", 1: "study_id", 2: "study_id user_attr", 3: "study_id system_attr",
        4: "study_id datetime_start", 5: "trial_id param_name param_value_internal distribution",
        6: "trial_id state values", 7: "trial_id step intermediate_value", 8: "trial_id user_attr",
        9: "trial_id system_attr",
    }[code].split()  # fmt: skip
    whole = {"op_code": code, "worker_id": "w", **dict.fromkeys(fields, 1)}

    def line(record: dict[str, Any]) -> bytes:
        return json.dumps(record).encode() + b"\n"

    assert record_of(line(whole)) == whole
    for field in ("worker_id", *fields):
        assert record_of(line({key: value for key, value in whole.items() if key != field})) is None, field
    newer = {"op_code": 10 + code, "worker_id": "w"}
    assert record_of(line(newer)) == newer


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 64])
def test_the_unreadable_end_is_found_wherever_the_blocks_begin(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archdsl.study.storage.journal_records._BLOCK_BYTES", 16)
    record = b'{"op_code":99,"worker_id":"w"}\n'
    for whole in (b"", record, record * 2):
        for torn in (b"x" * length, b"x" * (length - 1) + b"\n", b"\n" + b"x" * length):
            assert unreadable_end(io.BytesIO(whole + torn)) == len(whole), (whole, torn)
        assert unreadable_end(io.BytesIO(whole)) == len(whole)


@pytest.mark.parametrize("cause", [None, ValueError("the disk is full")])
def test_what_a_storage_says_is_told_with_its_cause_or_without(cause: Exception | None) -> None:
    with pytest.raises(StudyError) as caught, storage_errors(Place("study")):
        raise optuna.exceptions.StorageInternalError("it failed") from cause
    assert caught.value.problems[0].message == f"the study's storage failed: {cause or 'it failed'}"


@pytest.mark.parametrize("what", ["creates the study", "creates a trial"])
def test_no_hint_says_to_remove_what_other_records_need(tmp_path: Path, what: str) -> None:
    path = tmp_path / "study.journal"
    study_of_three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    code = b'{"op_code":0,' if what == "creates the study" else b'{"op_code":4,'
    number = next(number for number, line in enumerate(lines, 1) if line.startswith(code))
    for spoilt in (code + b"\n", lines[number - 1].replace(b"study", b"stu?y"), lines[number - 1][:40] + b"\n"):
        path.write_bytes(b"".join([*lines[: number - 1], spoilt, *lines[number:]]))
        with pytest.raises(StudyError, match=rf"study\.journal:{number}:1: .*\[damaged-study\]") as caught:
            open_storage(path)
        hint = caught.value.problems[0].hint or ""
        assert "earlier copy" in hint and "delete" not in hint and "out of it" not in hint
        path.write_bytes(spoilt)
        with pytest.raises(StudyError, match="damaged-study" if code in spoilt else "not an Optuna") as caught:
            open_storage(path)
        assert path.read_bytes() == spoilt, "nothing would be left"
        assert "delete" not in caught.value.text()


def test_a_line_that_another_tool_has_appended_behind_ends_a_search_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = study_at(path)
    add_trial(study, 1.0)
    number = len(path.read_bytes().splitlines()) + 1
    with open(path, "ab") as file:
        file.write(b"garbage\n" + path.read_bytes().splitlines(keepends=True)[-1])
    with pytest.raises(StudyError, match=rf"study\.journal:{number}:1: .*damaged"), storage_errors(Place("study")):
        study.get_trials()


@pytest.mark.parametrize("content", [b"hello", b"hello\n", b"\x00\x01", b"[1, 2]\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="not an Optuna journal"):
        open_storage(path)
    assert path.read_bytes() == content


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StudyError, match="link"):
        open_storage(tmp_path / "link")
    with pytest.raises(StudyError, match="not a regular file"):
        open_storage(tmp_path)


def test_sqlite_opens_by_url_and_forgets_a_study(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    optuna.create_study(study_name="s", storage=storage)
    forget_study(storage, "s")
    forget_study(storage, "s")
    assert storage.get_all_studies() == []


@pytest.mark.promise(41)
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3@c/ret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("mysql+pymysql://me:s3cret@host/db?ssl=1", "mysql+pymysql://me:***@host/db?ssl=1"),
        ("postgresql://host/db?user=me&password=s3cret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("postgresql://me:s3cret", "postgresql://me:***"),
        ("no server at postgresql://host:5432, is it up?", "no server at postgresql://host:5432, is it up?"),
        ("host=h password='s3 cret' dbname=d", "host=h password=*** dbname=d"),
        ("Server=h;Pwd=s3cret;Database=d", "Server=h;Pwd=***;Database=d"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "nonsense://me:s3cret@host/db",
        "postgresql://me:s3cret@127.0.0.1:1/db",
        "postgresql://me:s3c%72et@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=me&password=s3cret",
        "://",
    ],
)
def test_a_storage_that_cannot_be_opened_is_an_error_without_the_password(url: str) -> None:
    with pytest.raises(StudyError) as caught:
        open_storage(url)
    assert "s3cret" not in caught.value.text() and "s3c%72et" not in caught.value.text()
    assert caught.value.problems[0].rule == "storage"


MISTYPED = [
    "postgresql:/me:s3cret@127.0.0.1/db",
    "postgresql:me:s3cret@127.0.0.1/db",
    "postgresql//me:s3cret@127.0.0.1/db",
    "postgresql;//me:s3cret@127.0.0.1/db",
    "postgresql/me:s3cret@127.0.0.1/db",
    "postgres:\\\\me:s3cret@127.0.0.1\\db",
    "PostgreSQL+psycopg:/me:s3cret@127.0.0.1/db",
    "me:s3cret@127.0.0.1/db",
    "//me:s3cret@127.0.0.1/db",
    "me:s3c/s3cret@127.0.0.1/db",
    "mysql:s3cret",
    "host=127.0.0.1 dbname=db user=me password=s3cret",
    "dbname=db password='s3 s3cret' host=/var/run/postgresql",
    "host=/var/run/s3cret",
    "user=me password = s3cret",
    "Server=host;Database=db;Uid=me;Pwd=s3cret",
    "password=s3cret",
    "sqlite:study.db?password=s3cret",
    "localhost:5432/s3cret",
    " postgresql:/me:s3cret@127.0.0.1/db",
    "study.journal\npassword=s3cret",
]
"""No path, and no URL of a database."""
MALFORMED = [
    "postgresql://me:p@s3cret/x@127.0.0.1:1/db",
    "postgresql://me:s3cret",
    "postgresql://me:s3cret/db",
    "postgresql://me/x:s3cret@127.0.0.1:1/db",
    "postgresql://me:s3cret PW@127.0.0.1:1/db",
    "postgresql://me:s3cret@127.0.0.1:port/db",
    "postgresql://me:s3cret@127.0.0.1:1/d@b",
    "postgresql://me:s3cret@[::1/db",
    "postgresql://me:s3c?s3cret@127.0.0.1/db",
    " postgresql://me:s3cret@127.0.0.1/db",
    "jdbc:postgresql://me:s3cret@127.0.0.1/db",
    "sqlite://me:s3cret@127.0.0.1/db",
    "sqlite://study.db?password=s3cret",
    "postgresql://me:s3cret@127.0.0.1\n/db",
]


@pytest.mark.promise(41)
@pytest.mark.parametrize("text", [*MISTYPED, *MALFORMED])
def test_what_is_neither_a_url_nor_a_path_is_refused_and_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as caught:
        open_storage(text)
    assert caught.value.problems[0].rule == "storage"
    assert caught.value.problems[0].hint
    monkeypatch.setenv("ARCHDSL_STORAGE", text)
    assert run(["worker", "--study", "s"]) == 1
    assert run(["search", "quickstart", "--storage", text, "--json"]) == 1
    assert run(["search", "quickstart", f"--storage={text}", "--nonsense"]) == 1
    told = [caught.value.text(), str([problem.as_json() for problem in caught.value.problems]), *capsys.readouterr()]
    assert [one for one in told if "s3cret" in one] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "study.journal",
        "./study:1.journal",
        "/data/2026-01-01T10:00/me@host/study.journal",
        "../a:b@c/study.journal",
        "~/x:y",
        "runs/2026-01-01T10:00/study.journal",
        "user=me/study.journal",
        "lr=0.1.journal",
        "sqlite/study.journal",
        "me@host/study.journal",
        os.fsdecode(b"not-utf-8-\xff/study.journal"),
        "//share/study.journal",
        "sqlite:///study.db",
        "sqlite:////tmp/a:b@c/study.db",
        "postgresql://me:s3/cr:et#1@host/db",
        "postgresql://me@host:5432/db?sslmode=require",
        "postgresql://[::1]:5432/db",
        "postgresql:///db?host=/var/run/postgresql",
        "postgresql+psycopg://me:s%40t@host.example:5432/db?options=-c%20a=b",
        "mysql+pymysql://me:x@host/db?charset=utf8",
    ],
)
def test_paths_and_urls_are_taken_for_what_they_are(text: str) -> None:
    assert why_refused(text) is None
    assert shown(text) == masked(text)
    assert why_refused(f"{text}\0") is not None


@pytest.mark.promise(41)
def test_a_driver_that_repeats_the_password_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("no login for me with password s3cret")

    monkeypatch.setattr("archdsl.study.storage.opening.RDBStorage", refuse)
    with pytest.raises(StudyError, match=r"with password \*\*\*") as caught:
        open_storage("mysql://me:s3cret@host/db")
    assert "s3cret" not in caught.value.text()


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    add_trial(study_at(path), 1.0)
    assert all("op_code" in json.loads(line) for line in path.read_bytes().splitlines())
