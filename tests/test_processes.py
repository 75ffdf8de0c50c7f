"""Supervised child processes: kept while healthy, given up at the deadline, bounded in memory, killed from outside."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from archdsl.processes import imports
from archdsl.processes.child import ChildError
from archdsl.processes.limits import Limits
from archdsl.processes.warm import WarmProcess


def child(**options):
    return WarmProcess("odd_child", lambda: dict(os.environ), name="the child", **options)


def test_a_child_is_kept_between_jobs_and_replaced_after_the_last():
    with child(max_jobs=2) as warm:
        pids = [warm.ask({}, deadline_s=60)["pid"] for _ in range(3)]
        assert pids[0] == pids[1] != pids[2] == warm.pid
    assert warm.pid is None


def test_a_child_that_leaves_says_how_and_is_replaced():
    with child() as warm:
        with pytest.raises(ChildError, match="the child left with exit code 3 while taking the job") as caught:
            warm.ask({"exit": 3}, deadline_s=60)
        assert (caught.value.reason, caught.value.hint) == ("exit", "the last it printed: the last words")
        assert warm.ask({}, deadline_s=60)["kind"] == "result"


def test_progress_puts_the_deadline_off_and_silence_does_not():
    seen = []
    with child() as warm:
        warm.ask({}, deadline_s=60)
        job = {"steps": 4, "step_s": 1.5}
        warm.ask(job, deadline_s=4.5, on_progress=lambda message: seen.append(message["number"]))
        assert seen == [0, 1, 2, 3]
        with pytest.raises(ChildError, match=r"no answer within 4\.5 s while step [0-9]"):
            warm.ask(job, deadline_s=4.5)
        with pytest.raises(ChildError, match="no answer within 1 s") as caught:
            warm.ask({"sleep_s": 60}, deadline_s=1, on_progress=seen.append)
        assert caught.value.reason == "timeout"


@pytest.mark.parametrize("kind", Limits._fields)
def test_memory_is_bounded(kind):
    with child(limits=Limits(**{kind: 2**31})) as warm:
        assert warm.ask({"bytes": 2**26}, deadline_s=60)["bytes"] == 2**26
        assert warm.ask({"bytes": 2**31}, deadline_s=60)["bytes"] is None


def test_a_child_at_work_is_killed_by_another_thread():
    with child() as warm:
        warm.ask({}, deadline_s=60)
        killer = threading.Timer(0.3, warm.kill)
        killer.start()
        start = time.monotonic()
        with pytest.raises(ChildError, match="was killed") as caught:
            warm.ask({"sleep_s": 60}, deadline_s=60)
        assert caught.value.signal == signal.SIGKILL and time.monotonic() - start < 30
        killer.join()
        assert warm.pid is None


# --- what children import ---------------------------------------------------------------------------------------------

SHADOWS = ("queue", "types", "typing", "random", "struct", "json", "click", "yaml", "pydantic", "numpy", "pathlib")


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """The working folder: files in it have the names of libraries."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported {name} from the folder of the user')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["a script", "python -c", "python -m"])
def test_a_child_imports_nothing_from_the_folder_of_the_user(hostile, monkeypatch, kind):
    main = {
        "a script": SimpleNamespace(__file__=str(hostile / "script.py"), __spec__=None),
        "python -c": SimpleNamespace(__spec__=None),
        "python -m": SimpleNamespace(__file__="/elsewhere/module.py", __spec__="of the module"),
    }[kind]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "path", ["" if kind == "python -c" else str(hostile), *sys.path])
    with child() as warm:
        assert warm.ask({}, deadline_s=60)["kind"] == "result"
    assert str(hostile) not in imports.import_path()


def test_what_pythonpath_or_a_package_names_stays_and_archdsl_is_always_found(tmp_path, monkeypatch):
    home, here = str(Path(imports.__file__).parents[2]), str(tmp_path)
    monkeypatch.chdir(tmp_path)
    main = SimpleNamespace(__file__="/elsewhere/module.py", __spec__="of the module")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "path", [here, "/libraries", here, "relative"])
    assert imports.import_path() == ["/libraries", here, f"{here}/relative", home]
    monkeypatch.setattr(imports, "_HAS_LEFT", True)
    assert imports.import_path() == [here, "/libraries", here, f"{here}/relative", home]
    monkeypatch.setattr(imports, "_HAS_LEFT", False)
    main.__file__, main.__spec__ = f"{home}/script.py", None
    monkeypatch.setattr(sys, "path", [home, "/libraries"])
    assert imports.import_path() == ["/libraries", home]


def test_spawned_processes_import_libraries_first_and_everything_is_as_before(hostile, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(hostile / "script.py"), __spec__=None))
    monkeypatch.setattr(sys, "path", before := [str(hostile), *sys.path])
    with imports.safe_spawn():
        assert sys.path[-1] == str(hostile) and os.environ["PYTHONSAFEPATH"] == "1"
    assert sys.path == before and "PYTHONSAFEPATH" not in os.environ


def test_python_m_archdsl_imports_nothing_from_the_working_folder(hostile):
    (hostile / "types.py").unlink()  # Python itself imports it for -m, before anything of archdsl runs
    command = [sys.executable, "-m", "archdsl", "check", "micro_swin"]
    environment = {**os.environ, "PYTHONSAFEPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, "micro_swin: fine" in done.stdout) == (0, True), done.stderr
