"""A study in PostgreSQL: locks, leases, exact resume, passwords; on a server that the tests start themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import optuna
import pytest
from fake_study import FakeTraining, fake_campaign
from optuna.distributions import IntDistribution
from optuna.exceptions import StorageInternalError
from postgres import PASSWORD, server, why_not
from test_campaign import Stop, forget_owner, told
from test_leases import LONG, Worker
from test_search_cli import zombie

from archdsl.errors import StudyError
from archdsl.language import Spec
from archdsl.study.events import TrialEnded
from archdsl.study.storage.leases import Lease, LeaseLost
from archdsl.study.storage.locks import PostgresStudyLock
from archdsl.study.storage.opening import forget_study, open_storage
from archdsl.study.storage.store import study_lock

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture
def url(database: str) -> Iterator[str]:
    yield database
    storage = open_storage(database)
    for study in storage.get_all_studies():
        forget_study(storage, study.study_name)


def test_the_lock_is_held_by_one_client_after_the_other(url: str, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    storage = open_storage(url)

    def count() -> None:
        lock = study_lock(storage, "s")
        assert isinstance(lock, PostgresStudyLock)
        for _ in range(10):
            with lock.held():
                number = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(number + 1))
        lock.close()

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "60"


def test_the_time_of_a_turn_is_the_servers(url: str) -> None:
    lock = study_lock(open_storage(url), "s")
    with lock.held() as now:
        assert abs(now - time.time()) < 5
    lock.close()


def test_studies_do_not_wait_for_each_other(url: str) -> None:
    storage = open_storage(url)
    one, other = study_lock(storage, "one"), study_lock(storage, "other", timeout_s=1)
    with one.held(), other.held():
        pass
    one.close(), other.close()


def test_a_lock_that_is_not_released_is_an_error(url: str) -> None:
    storage = open_storage(url)
    lock, other = study_lock(storage, "s"), study_lock(storage, "s", timeout_s=0.3)
    with lock.held(), pytest.raises(StudyError, match="has not released the lock"), other.held():
        pass
    with other.held():
        pass
    lock.close(), other.close()


def test_a_turn_whose_connection_was_cut_is_taken_anew(url: str) -> None:
    lock = study_lock(open_storage(url), "s")
    with lock.held():
        pass
    cut_all_others(url)
    with lock.held():
        pass
    lock.close()


def test_a_turn_is_there_as_a_whole_or_not_at_all(url: str) -> None:
    worker = Worker(url)

    def half_a_block() -> None:
        with worker.store.lock.held() as now:
            lease = worker.leases.acquire(now)
            worker.leases.write_held(lease, {"name": "one", "hash": "h"})
            assert len(worker.study.get_trials()) == 1
            raise Stop

    with pytest.raises(Stop):
        half_a_block()
    assert Worker(url).study.get_trials() == []


def test_nobody_sees_a_turn_before_it_is_over(url: str) -> None:
    worker, other = Worker(url), Worker(url)
    with worker.store.lock.held() as now:
        worker.leases.acquire(now)
        assert other.study.get_trials() == []
    assert len(other.study.get_trials()) == 1


def test_only_the_turn_that_finishes_something_waits_for_the_disk(url: str) -> None:
    worker = Worker(url)
    assert waits(worker) == "off"
    for durable, setting in ((False, "off"), (True, "on"), (False, "off")):
        with worker.store.lock.held(durable=durable):
            assert waits(worker) == setting
    with worker.store.batch():
        assert waits(worker) == "off"


def waits(worker: Worker) -> str:
    """Whether a commit of this worker, now, would wait for the disk."""
    from sqlalchemy import text

    with worker.storage.scoped_session() as session:  # type: ignore[attr-defined]
        return str(session.scalar(text("SHOW synchronous_commit")))


def test_a_worker_that_falls_silent_in_its_turn_loses_it(url: str) -> None:
    silent, other = Worker(url), Worker(url)
    silent.store.lock = study_lock(silent.storage, "s", timeout_s=1)

    def late() -> None:
        with silent.store.lock.held() as now:
            lease = silent.leases.acquire(now)
            other.tell(other.take(), 1.0)  # waits for the turn, and has it half a second later
            silent.leases.write_held(lease, {"name": "late"})

    with pytest.raises(StorageInternalError):
        late()
    assert other.states == ["COMPLETE"]
    with silent.store.lock.held() as now:
        assert silent.leases.acquire(now).number == 1


def refused_once(worker: Worker, lease: Lease) -> None:
    """What a worker does that has lost its trial to one that is as far as itself: Optuna swallows the refusal."""
    knob = IntDistribution(0, 9)
    for name in ("x", "x", "y"):
        worker.study._storage.set_trial_param(lease.trial._trial_id, name, 1.0, knob)


def refused_at_last(worker: Worker, lease: Lease) -> None:
    """The same, with nothing behind it that could tell."""
    for _ in range(2):
        worker.study._storage.set_trial_param(lease.trial._trial_id, "z", 1.0, IntDistribution(0, 9))


def test_a_turn_in_which_a_write_was_refused_is_an_error(url: str) -> None:
    worker = Worker(url)
    with worker.store.lock.held() as now:
        lease = worker.leases.acquire(now)
    with pytest.raises(StorageInternalError), worker.leases.held(lease):
        refused_once(worker, lease)
    with pytest.raises(StorageInternalError, match="rolled back"), worker.leases.held(lease):
        refused_at_last(worker, lease)
    assert worker.study.get_trials()[0].params == {}


def test_what_is_written_together_is_there_afterwards_all_at_once(url: str) -> None:
    worker, other = Worker(url), Worker(url)
    with worker.store.lock.held() as now:
        lease = worker.leases.acquire(now)
    with worker.store.batch():
        for name in ("x", "y"):
            lease.trial.suggest_int(name, 0, 9)
        assert other.study.get_trials()[0].params == {}
    assert set(other.study.get_trials()[0].params) == {"x", "y"}


def test_outside_a_turn_a_refused_write_harms_none_behind_it(url: str) -> None:
    worker = Worker(url)
    with worker.store.lock.held() as now:
        lease = worker.leases.acquire(now)
    with worker.store.batch():
        refused_once(worker, lease)
    assert "y" in worker.study.get_trials()[0].params


def test_a_trial_takes_few_statements(url: str, tmp_path: Path) -> None:
    """By Optuna's own ways each call is a transaction, and each attribute a call: more than twice as many."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    names = ("before_cursor_execute", "begin", "commit")
    sent, at_trial = 0, []

    def count(*anything: object) -> None:
        nonlocal sent
        sent += 1

    def listen(found: object) -> None:
        if isinstance(found, TrialEnded):
            at_trial.append(sent)

    for name in names:
        event.listen(Engine, name, count)
    fake_campaign(tmp_path, trials=8, storage=url, sampler="random", on_event=listen).run()
    for name in names:
        event.remove(Engine, name, count)
    num_knobs = 7
    a_trial = median(after - before for before, after in pairwise(at_trial))
    assert a_trial <= 62 + 2 * num_knobs


def cut_all_others(url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def test_a_trial_has_one_holder_and_the_late_result_is_dropped(url: str) -> None:
    late, other = Worker(url), Worker(url)
    lost = late.take()
    assert other.reap() == []
    assert other.reap(later_s=LONG) == [0]
    lost.until -= LONG  # as it would be by then
    taken = other.take()
    with pytest.raises(LeaseLost):
        late.tell(lost, 1.0)
    other.tell(taken, 2.0)
    assert [trial.value for trial in late.study.get_trials()] == [2.0]


def test_a_study_resumes_exactly(url: str, tmp_path: Path) -> None:
    calls = 0

    def hook(spec: Spec) -> None:
        nonlocal calls
        calls += 1
        if calls in (3, 5):
            raise Stop

    whole = fake_campaign(tmp_path, trials=7).run().records
    for _ in range(2):
        campaign = fake_campaign(tmp_path, training=FakeTraining(hook), trials=7, storage=url)
        with pytest.raises(Stop):
            campaign.run()
        forget_owner(campaign)
    assert told(fake_campaign(tmp_path, trials=7, storage=url).run().records) == told(whole)


def test_optuna_reads_the_study_with_its_own_tools(url: str, tmp_path: Path) -> None:
    fake_campaign(tmp_path, trials=2, storage=url).run()
    study = optuna.load_study(study_name="fake", storage=url.replace("://", "+psycopg://", 1))
    assert len(study.best_trials) >= 1


def test_a_wrong_password_is_not_repeated(url: str) -> None:
    with pytest.raises(StudyError) as caught:
        open_storage(url.replace(PASSWORD, "gu3ssed"))
    assert "gu3ssed" not in caught.value.text()
    assert "me:***@" in caught.value.text()


def test_a_server_that_is_gone_is_an_error_and_not_a_traceback(tmp_path: Path) -> None:
    with server() as url:
        training = FakeTraining(lambda spec: stop.close() if len(training.seen) == 2 else None)
        campaign = fake_campaign(tmp_path, training=training, trials=4, storage=url)
        stop = Stopper(url)
        with pytest.raises(StudyError, match="storage failed") as caught:
            campaign.run()
        assert PASSWORD not in caught.value.text()


class Stopper:
    """Ends a server from within, as an administrator would."""

    def __init__(self, url: str):
        self.url = url

    def close(self) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            folder = connection.execute("SHOW data_directory").fetchone()
            assert folder is not None
            pid = int(Path(folder[0], "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGINT)
        while Path(f"/proc/{pid}/stat").exists() and not zombie(pid):
            time.sleep(0.02)


WORKER = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from archdsl.study.events import TrialEnded
from fake_study import FakeTraining, fake_campaign
acks = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def listen(event):
    if isinstance(event, TrialEnded):
        os.write(acks, f"{event.record.number} {event.record.values}\\n".encode())

training = FakeTraining(lambda spec: time.sleep(0.02))
fake_campaign(".", training=training, trials=24, storage=sys.argv[1], on_event=listen, joins=True,
              sampler="random").run()
"""


def test_a_killed_client_loses_nothing_that_it_finished(url: str, tmp_path: Path) -> None:
    acks = tmp_path / "acks"
    fake_campaign(tmp_path, trials=24, storage=url, sampler="random").hand_over()
    command = [sys.executable, "-c", WORKER, url, str(Path(__file__).parent), str(acks)]
    for _ in range(2):
        workers = [subprocess.Popen(command) for _ in range(2)]
        seen = len(acks.read_text().splitlines()) if acks.exists() else 0
        end = time.monotonic() + 60
        while not acks.exists() or len(acks.read_text().splitlines()) < seen + 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
    records = fake_campaign(tmp_path, trials=24, storage=url, sampler="random").run().records
    finished = {f"{record.number} {record.values}" for record in records}
    lines = acks.read_text().splitlines()
    assert set(lines) <= finished
    assert len(lines) == len(set(lines))
    assert [record.number for record in records] == list(range(len(records)))
    assert sum(not record.cheap for record in records) == 24
