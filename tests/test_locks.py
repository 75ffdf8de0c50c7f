"""Locks: who waits, who is refused, what a killed process leaves, and file systems without locks."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from archdsl.locks import LockBusy, acquire, locked

HOLD = """
import sys, time
from archdsl.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a file."""
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.communicate()


def test_a_lock_of_another_process_refuses_at_once_or_after_the_wait(holder):
    path, _ = holder
    with pytest.raises(LockBusy, match="for 0 s"), locked(path, timeout_s=0):
        pass
    start = time.monotonic()
    with pytest.raises(LockBusy, match=r"for 0\.2 s"), locked(path, timeout_s=0.2):
        pass
    assert time.monotonic() - start >= 0.2


def test_a_killed_process_holds_no_lock(holder):
    path, process = holder
    process.kill()
    with locked(path, timeout_s=10) as exclusive:
        assert exclusive


def test_who_waits_is_next(tmp_path):
    order = []

    def second():
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_the_lock_of_a_folder_leaves_nothing_in_it(tmp_path):
    with locked(tmp_path), pytest.raises(LockBusy), locked(tmp_path, timeout_s=0):
        pass
    with locked(tmp_path, timeout_s=0):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_is_private_and_never_a_link(tmp_path):
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "link"):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_without_locks_the_work_goes_on_and_says_so(tmp_path, monkeypatch, number):
    def refuse(descriptor, *, blocking):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("archdsl.locks.lock_descriptor", refuse)
    with locked(tmp_path / "lock") as exclusive, locked(tmp_path / "lock", timeout_s=0) as other:
        assert exclusive is other is False


def test_an_open_file_can_be_locked_too(tmp_path):
    with open(tmp_path / "data", "w") as first, open(tmp_path / "data") as second:
        assert acquire(first.fileno(), timeout_s=0)
        with pytest.raises(LockBusy):
            acquire(second.fileno(), timeout_s=0)
    with open(tmp_path / "data") as third:
        assert acquire(third.fileno(), timeout_s=0)
