"""P42: what stands in the place of a file of archdsl's is neither followed nor waited for, and is told by its name."""

from __future__ import annotations

import ast
import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import archdsl
from archdsl import jsonl
from archdsl.backends.trt import cache as trt_cache
from archdsl.builds.folder import MADE, new_contents, write_marker
from archdsl.errors import ArchError, StudyError
from archdsl.failures import failed
from archdsl.latency import CacheWarning, TimingCache
from archdsl.latency.cache.quarantine import Quarantine
from archdsl.latency.repeatability import Repeat
from archdsl.latency.timing import utc_now
from archdsl.locks import locked
from archdsl.owned import NotOurs, check_own, open_own, own_folder, read_own
from archdsl.runs.folder import MARKER, RunFolder
from archdsl.runtimes.adapters.onnx_tensorrt import take_up, vouch_for
from archdsl.runtimes.artefact import Artefact
from archdsl.study.storage.journal import GuardedJournal
from archdsl.study.storage.locks import FileStudyLock
from archdsl.study.storage.opening import open_storage
from archdsl.study.workers.local import LocalWorkers
from archdsl.telemetry.device_lock import device_lock
from archdsl.training import JsonLines

CONTENT = b"somebody else's\n"


def make_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def make_dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("was not there"))


def make_second_name(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def make_pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def make_folder(path: Path, victim: Path) -> None:
    path.mkdir()


Trap = Callable[[Path, Path], None]
LINKS: list[Trap] = [make_link, make_dangling_link]
FILES: list[Trap] = [*LINKS, make_second_name, make_pipe, make_folder]
ALL: list[Trap] = [*FILES, make_socket]


def named(trap: Trap) -> str:
    return trap.__name__.removeprefix("make_")


@pytest.fixture
def victim(tmp_path: Path):
    """A file elsewhere. At the end it is as it was, and nothing was made beside it."""
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    yield path
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["victim"]


@pytest.mark.promise(42)
@pytest.mark.parametrize("trap", ALL, ids=named)
def test_only_a_regular_file_of_one_name_is_opened(tmp_path: Path, victim: Path, trap: Trap) -> None:
    path = tmp_path / "ours"
    trap(path, victim)
    for how in (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR | os.O_CREAT | os.O_APPEND, os.O_WRONLY):
        with pytest.raises(NotOurs, match="/ours "):
            open_own(path, how)
    with pytest.raises(NotOurs, match="/ours "):
        check_own(path)
    if trap is not make_folder:  # which can be locked
        with pytest.raises(NotOurs, match="/ours "), locked(path):
            pass
    if trap is make_second_name:
        assert read_own(path) == CONTENT
    else:
        with pytest.raises(NotOurs, match="/ours is a"):
            read_own(path)


def test_a_file_has_its_mode_and_is_emptied_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "ours"
    os.close(open_own(path, os.O_WRONLY | os.O_CREAT, 0o600))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"old")
    descriptor = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert (path.read_bytes(), os.get_inheritable(descriptor)) == (b"", False)
    os.close(descriptor)
    with pytest.raises(FileNotFoundError):
        read_own(tmp_path / "missing")


@pytest.mark.parametrize("trap", [*LINKS, make_second_name, make_pipe], ids=named)
def test_a_folder_of_ours_is_a_real_one(tmp_path: Path, victim: Path, trap: Trap) -> None:
    trap(tmp_path / "ours", victim)
    with pytest.raises(NotOurs, match="/ours is a"):
        own_folder(tmp_path / "ours")
    (tmp_path / "through").symlink_to(victim.parent)
    with pytest.raises(NotOurs, match="/through is a link"):
        own_folder(tmp_path / "through")
    made = own_folder(tmp_path / "a" / "b", 0o700)
    assert made.stat().st_mode & 0o777 == 0o700
    assert own_folder(made) == made


@pytest.mark.parametrize("trap", FILES, ids=named)
def test_a_study_names_what_stands_beside_its_journal(tmp_path: Path, victim: Path, trap: Trap) -> None:
    """The study's turns, what was torn off, and the link by which Optuna's tools lock."""
    journal = tmp_path / "study.journal"
    GuardedJournal(journal)
    trap(tmp_path / "study.journal.turns", victim)
    with pytest.raises(NotOurs, match=r"study\.journal\.turns"), FileStudyLock(tmp_path / "study.journal.turns").held():
        pass
    trap(tmp_path / "study.journal.torn", victim)
    journal.write_bytes(b'{"op_code":0,"wor')
    with pytest.raises(StudyError, match=r"study\.journal\.torn .*\[output-folder\]"):
        open_storage(journal)
    assert journal.read_bytes() == b'{"op_code":0,"wor', "nothing of the journal is lost"


@pytest.mark.parametrize("trap", FILES, ids=named)
def test_a_study_in_sqlite_is_in_a_file_of_ours(tmp_path: Path, victim: Path, trap: Trap) -> None:
    for name in ("study.db", "study.db.turns"):
        trap(tmp_path / name, victim)
        with pytest.raises(StudyError, match=rf"{name} .*\[output-folder\]"):
            open_storage(f"sqlite:///{tmp_path}/study.db")
        (tmp_path / name).rmdir() if trap is make_folder else (tmp_path / name).unlink()
    open_storage(f"sqlite:///{tmp_path}/study.db")


@pytest.mark.parametrize("trap", [make_second_name, make_pipe, make_folder], ids=named)
def test_what_is_no_lock_is_not_removed_as_one(tmp_path: Path, victim: Path, trap: Trap) -> None:
    trap(tmp_path / "study.journal.lock", victim)
    with pytest.raises(StudyError, match=r"study\.journal\.lock is where the journal's lock belongs"):
        open_storage(tmp_path / "study.journal")
    assert os.path.lexists(tmp_path / "study.journal.lock")


def test_the_lock_of_a_dead_optuna_that_named_the_journal_otherwise_is_taken(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's link holds the path as its process was given it, so that it may lead nowhere."""
    monkeypatch.setattr("archdsl.study.storage.journal._FOREIGN_LOCK_S", 0.2)
    for trap in (make_link, make_dangling_link):
        trap(tmp_path / "study.journal.lock", victim)
        open_storage(tmp_path / "study.journal")
        assert not os.path.lexists(tmp_path / "study.journal.lock")


@pytest.mark.promise(42)
def test_a_run_folder_names_all_that_is_not_its_own_at_once(tmp_path: Path, victim: Path) -> None:
    out = tmp_path / "out"
    RunFolder(out).describe({})
    make_pipe(out / "trainings.jsonl", victim)
    make_link(out / "study.journal.turns", victim)
    make_second_name(out / "study.journal.torn", victim)
    make_folder(out / "study.journal", victim)
    make_link(out / "workers", victim.parent)
    make_pipe(out / "checkpoints", victim)
    with pytest.raises(StudyError) as caught:
        RunFolder(out)
    found = [problem.message.removeprefix(f"{out}/").split()[0] for problem in caught.value.problems]
    expected = ["study.journal", "trainings.jsonl", "study.journal.turns", "study.journal.torn"]
    assert found == [*expected, "workers", "checkpoints"]
    assert {problem.rule for problem in caught.value.problems} == {"output-folder"}


@pytest.mark.parametrize("trap", FILES, ids=named)
@pytest.mark.parametrize("name", ["worker-1.json", "worker-1.log", ""], ids=str)
def test_what_workers_print_goes_into_files_of_ours(tmp_path: Path, victim: Path, trap: Trap, name: str) -> None:
    if (trap, name) == (make_folder, ""):
        return
    logs = tmp_path / "workers"
    if name:
        logs.mkdir()
    trap(logs / name, victim if name else victim.parent if trap is not make_second_name else victim)
    workers = LocalWorkers([sys.executable, "-c", "print('written')"], 1, environment={}, logs=logs)
    with pytest.raises(NotOurs, match=name or "workers"):
        workers.start()


@pytest.mark.parametrize("trap", FILES, ids=named)
def test_trainings_are_kept_in_a_file_of_ours(tmp_path: Path, victim: Path, trap: Trap) -> None:
    path = tmp_path / "trainings.jsonl"
    trap(path, victim)
    with pytest.raises(NotOurs, match=r"trainings\.jsonl"):
        JsonLines(path)["key"] = {}
    with pytest.raises(NotOurs, match=r"trainings\.jsonl"):
        jsonl.append(path, {})


@pytest.mark.parametrize("trap", FILES, ids=named)
@pytest.mark.parametrize("name", ["timings.sqlite", "timings.lock", "crashes.jsonl", "crashes.lock"])
def test_a_cache_goes_without_what_is_not_its_own(tmp_path: Path, victim: Path, trap: Trap, name: str) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    trap(folder / name, victim)
    if trap is make_folder and name.endswith(".lock"):
        return  # a folder can be locked
    asked, target = Artefact("null", "hash", (3, 8, 8), macs=1), "null 1 on cpu"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if name.startswith("timings"):
            assert TimingCache(folder).get(asked, target) is None
            TimingCache(folder).note(Repeat("a place", "key", 1.0, utc_now()))
        else:
            assert Quarantine(folder).note(asked, target, failed("crash", "it crashed", where="null"))
    assert caught and {warning.category for warning in caught} == {CacheWarning}


@pytest.mark.parametrize("trap", [*LINKS, make_pipe], ids=named)
def test_a_device_is_measured_without_a_lock_that_is_not_ours(
    tmp_path: Path, victim: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    trap(tmp_path / "timing-cpu-host.lock", victim)
    with device_lock("cpu"):
        pass


def test_caches_of_tensorrt_are_real_files_in_real_folders(tmp_path: Path, victim: Path) -> None:
    make_pipe(tmp_path / "timings", victim)
    with pytest.raises(NotOurs, match="timings is a pipe"):
        trt_cache._read(tmp_path / "timings")
    make_link(tmp_path / "place", victim.parent)
    with pytest.raises(NotOurs, match="place is a link"):
        take_up(tmp_path / "place")
    folder = tmp_path / "engines"
    take_up(folder)
    (folder / "engine").write_bytes(b"plan")
    vouch_for(folder)
    make_pipe(folder / "more", victim)
    take_up(folder)  # what cannot be vouched for is built anew
    assert list(folder.iterdir()) == []


def test_a_build_takes_nothing_from_behind_a_link(tmp_path: Path) -> None:
    """Files of an interrupted build are put in place, but not files of another folder."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "notes").write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    write_marker(theirs, "build.json", {})
    out = tmp_path / "out"
    out.mkdir()
    (out / MADE).symlink_to(theirs)
    with pytest.raises(ArchError, match=r"archdsl-made is a link"), new_contents(out, "build.json"):
        pass
    assert hashlib.sha256((theirs / "notes").read_bytes()).hexdigest() == digest
    assert sorted(path.name for path in out.iterdir()) == [MADE]


def test_a_marker_that_is_a_pipe_marks_nothing(tmp_path: Path, victim: Path) -> None:
    make_pipe(tmp_path / MARKER, victim)
    with pytest.raises(ArchError, match="did not write"):
        RunFolder(tmp_path)


OTHERS = {
    "owned.py": "opens with the checks",
    "files.py": "writes under a new name that did not exist (`xb`), and flushes folders",
    "locks.py": "opens a folder to lock it",
    "cli/streams.py": "os.devnull",
    "language/text/files.py": "reads what the user names, with checks of its own",
    "training/data/decode.py": "reads images of the user's",
    "runs/job.py": "writes into a temporary folder that it has just made",
    "telemetry/peak_memory.py": "writes to /proc",
    "runtimes/adapters/onnx_tensorrt.py": "touches a folder of its own",
}
WRITES = {"write_text", "write_bytes", "touch", "FileHandler", "FileLock"}


@pytest.mark.promise(42)
def test_every_file_that_is_written_is_opened_as_ours() -> None:
    """`open_own`, `jsonl.append` and `write_file` are the ways to write; who does otherwise says why in `OTHERS`."""
    root = Path(archdsl.__file__).parent
    found = {}
    for path in sorted(root.rglob("*.py")):
        lines = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if _writes(node)]
        if lines and str(path.relative_to(root)) not in OTHERS:
            found[str(path.relative_to(root))] = lines
    assert found == {}


def _writes(node: ast.AST) -> bool:
    """Whether a call opens a file by name to write, or opens one by `os.open`."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = getattr(getattr(node.func, "value", None), "id", "")
    if name == "open" and owner == "os":
        return True
    if name == "open" and isinstance(node.func, ast.Attribute):
        return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in node.args[:1])
    if name == "open":
        is_ours = isinstance(node.args[0], ast.Call) and getattr(node.args[0].func, "id", "") == "open_own"
        mode = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else "r"
        return not is_ours and bool(set(str(mode)) & set("wax+"))
    return name in WRITES
