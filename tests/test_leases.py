"""Leases: who holds a trial, when it is given to another, and that each is finished once; on a journal and SQLite."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_study import FakeTraining, fake_campaign, long_ago
from optuna.trial import TrialState

from archdsl.errors import StudyError
from archdsl.language import Spec
from archdsl.study.storage.leases import LEASE_S, PATIENCE, Lease, LeaseLost, Leases, has_expired
from archdsl.study.storage.locks import FileStudyLock, LocalStudyLock
from archdsl.study.storage.opening import open_storage
from archdsl.study.storage.process_identity import is_gone, is_here, is_stopped, this_process
from archdsl.study.storage.store import StudyStore, study_lock

Place = Callable[[], "Worker"]


class Worker:
    """One worker's view of a study, as another process would have it: storage, lock and leases of its own."""

    def __init__(self, storage: str, lease_s: float = 60.0):
        self.storage = open_storage(storage)
        lock = study_lock(self.storage, "s")
        with lock.held():
            names = [study.study_name for study in self.storage.get_all_studies()]
            make = optuna.load_study if "s" in names else optuna.create_study
            self.study = make(study_name="s", storage=self.storage)
        self.store = StudyStore(self.study, lock)
        self.leases = Leases(self.store, lease_s=lease_s)

    def take(self) -> Lease:
        with self.store.lock.held() as now:
            lease = self.leases.acquire(now)
        lease.trial.suggest_int("x", 0, 99)
        return lease

    def reap(self, *, later_s: float = 0.0) -> list[int]:
        """Reap as if some time had gone by."""
        with self.store.lock.held() as now:
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            return self.leases.requeue_expired(now + later_s, running)

    def tell(self, lease: Lease, value: float) -> None:
        self.leases.finish(lease, TrialState.COMPLETE, [value], {"seconds": 1.0})

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials(deepcopy=False)]


@pytest.fixture(params=["journal", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    storage = str(tmp_path / "s.journal") if request.param == "journal" else f"sqlite:///{tmp_path}/s.db"
    return lambda **more: Worker(storage, **more)


LONG = (1 + PATIENCE) * LEASE_S + 1
"""Longer than even a holder that is plainly there may be late."""


def test_a_running_trial_says_who_holds_it_and_until_when(place: Place) -> None:
    worker = place()
    before = time.time()
    worker.take()
    holder = worker.study.get_trials()[0].user_attrs["archdsl:owner"]
    assert {key: holder[key] for key in this_process()} == this_process()
    assert before + LEASE_S - 1 <= holder["lease_until"] <= time.time() + LEASE_S


@pytest.mark.promise(18)
def test_a_trial_is_given_to_another_when_its_lease_has_passed(place: Place) -> None:
    silent, other = place(), place()
    lost = silent.take()
    assert other.reap() == []
    assert other.reap(later_s=LONG) == [0]
    assert other.states == ["WAITING"]
    taken = other.take()
    assert (taken.number, taken.trial.params) == (0, lost.trial.params), "the same trial, with what was suggested"


@pytest.mark.promise(18)
def test_the_late_result_of_a_trial_that_is_anothers_is_dropped(place: Place) -> None:
    late, other = place(), place()
    lost = late.take()
    other.reap(later_s=LONG)
    with pytest.raises(LeaseLost):
        late.leases.write(lost, {"timing": 1})
    taken = other.take()
    with pytest.raises(LeaseLost, match="trial 0 was given to another"):
        late.tell(lost, 1.0)
    other.tell(taken, 2.0)
    with pytest.raises(LeaseLost):
        late.tell(lost, 1.0)
    late.leases.release(lost)
    trial = other.study.get_trials()[0]
    assert (other.states, trial.value, "archdsl:timing" in trial.user_attrs) == (["COMPLETE"], 2.0, False)


def test_a_worker_that_gets_its_own_lost_trial_again_holds_it_once(place: Place) -> None:
    one, other = place(), place()
    first = one.take()
    other.reap(later_s=LONG)
    second = one.take()
    with pytest.raises(LeaseLost):
        one.tell(first, 1.0)
    one.tell(second, 2.0)
    assert one.study.get_trials()[0].value == 2.0


def test_of_many_that_reap_the_same_trial_one_gets_it(place: Place) -> None:
    dead = place()
    gone = {**this_process(), "pid": 2**22 + 1}
    dead.study._storage.set_trial_user_attr(dead.take().trial._trial_id, "archdsl:owner", gone)
    workers = [place() for _ in range(6)]
    ready = threading.Barrier(6)
    reaped, taken = [], []

    def reap_and_take(worker: Worker) -> None:
        ready.wait()
        reaped.extend(worker.reap())
        taken.append(worker.take().number)

    threads = [threading.Thread(target=reap_and_take, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reaped.count(0) == 1
    assert sorted(taken) == [0, 1, 2, 3, 4, 5]


def test_a_lease_is_renewed_while_its_worker_lives(place: Place) -> None:
    worker, other = place(lease_s=0.4), place()

    def lease_until() -> float:
        return float(other.study.get_trials()[0].user_attrs["archdsl:owner"]["lease_until"])

    with worker.leases:
        lease = worker.take()
        first, patience = lease_until(), time.monotonic() + 30  # a busy machine is late, not silent
        while lease_until() < first + 1.0 and time.monotonic() < patience:
            time.sleep(0.05)
        assert lease_until() >= first + 1.0
        worker.tell(lease, 1.0)
    assert other.states == ["COMPLETE"]


def test_a_renewal_that_was_not_written_counts_for_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = place()
    lease = worker.take()
    until = lease.until

    @contextlib.contextmanager
    def taken() -> Iterator[float]:
        yield time.time() + 30
        raise OSError("injected: the turn could not be ended")

    monkeypatch.setattr(worker.store.lock, "held", taken)
    with pytest.raises(OSError, match="injected"):
        worker.leases._renew()
    assert lease.until == until


def test_a_trial_whose_holder_died_while_taking_it_is_put_back_at_once(place: Place) -> None:
    worker = place()
    worker.study.ask()  # no holder: in a turn, nobody is between asking and signing
    assert worker.reap() == [0]


def test_a_trial_that_many_workers_died_of_is_failed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, other = place(), place()
    monkeypatch.setattr("archdsl.study.storage.leases.MOST_REQUEUED", 2)
    for times in range(3):
        assert worker.states in ([], ["WAITING"]), times
        worker.take()
        assert other.reap(later_s=LONG) == [0]
    trial = worker.study.get_trials()[0]
    assert (trial.state.name, trial.user_attrs["archdsl:rule"]) == ("FAIL", "worker-lost")


# --- when a lease has passed ----------------------------------------------------------------------------------------


def holder(**changes: Any) -> dict[str, Any]:
    return {**this_process(), "worker": "w-1", "lease_until": 1000.0, "lease_s": 60.0, **changes}


@pytest.mark.parametrize(
    ("found", "now", "passed"),
    [
        (holder(), 999.0, False),
        (holder(), 1000 + PATIENCE * 60 - 1, False),  # plainly here: starved, or the clock jumped
        (holder(), 1000 + PATIENCE * 60 + 1, True),
        (holder(host="elsewhere"), 999.0, False),
        (holder(host="elsewhere"), 1001.0, True),
        (holder(ids="pid:[1]"), 999.0, False),  # another container under the same host name
        (holder(ids="pid:[1]", pid=2**22 + 1), 999.0, False),
        (holder(ids="pid:[1]"), 1001.0, True),
        (holder(pid=2**22 + 1), 0.0, True),  # dead
        (holder(started=long_ago()), 0.0, True),  # dead, and its id used again
        (holder(host="elsewhere", lease_until=None), 1e12, False),  # an older version wrote it
        (None, 0.0, True),
        ("nonsense", 0.0, True),
    ],
)
def test_a_lease_passes(found: Any, now: float, passed: bool) -> None:
    assert has_expired(found, now) is passed


def test_a_process_of_another_machine_with_our_name_is_not_looked_for_here() -> None:
    other = {**this_process(), "pid": 3_999_999, "started": "another boot:123"}
    assert not is_here(other) and not is_gone(other)
    assert is_gone({**other, "started": this_process()["started"]})


@pytest.mark.promise(18)
def test_a_halted_process_keeps_its_trial_until_its_lease_passes() -> None:
    code = (
        "from archdsl.study.storage.process_identity import this_process; import json; "
        "print(json.dumps(this_process()), flush=True); import time; time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        import json

        found = holder(**json.loads(child.stdout.readline()))
        assert is_here(found) and not is_stopped(found)
        assert not has_expired(found, 1001.0)
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(found))
        assert not has_expired(found, 999.0)
        assert has_expired(found, 1001.0)
        child.kill()
        child.wait()
        assert has_expired(found, 0.0)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


# --- locks ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise(22)
def test_the_lock_is_held_by_one_after_the_other(tmp_path: Path) -> None:
    """Eight threads with locks of their own count together, reading and writing the number in two steps."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        lock = FileStudyLock(tmp_path / "turns")
        for _ in range(25):
            with lock.held():
                number = int(counter.read_text())
                time.sleep(0.0005)
                counter.write_text(str(number + 1))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "200"


def test_a_lock_that_is_not_released_is_an_error_that_names_its_holder(tmp_path: Path) -> None:
    lock, other = FileStudyLock(tmp_path / "turns"), FileStudyLock(tmp_path / "turns", timeout_s=0.2)
    with lock.held(), pytest.raises(StudyError, match=f"process {os.getpid()} has not released the lock"), other.held():
        pass
    with other.held():
        pass


def test_the_lock_is_released_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from archdsl.study.storage.locks import FileStudyLock\n"
        "with FileStudyLock(Path(sys.argv[1])).held(): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "turns")]).returncode == -9
    with FileStudyLock(tmp_path / "turns", timeout_s=0.1).held():
        pass


def test_a_database_whose_locks_are_unknown_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    monkeypatch.setattr(type(storage.engine.url), "get_backend_name", lambda self: "oracle")  # type: ignore[attr-defined]
    with pytest.raises(StudyError, match="has no lock for the workers of a study in oracle"):
        study_lock(storage, "s")


def test_a_storage_in_memory_needs_a_lock_among_threads_only() -> None:
    assert isinstance(study_lock(optuna.storages.InMemoryStorage(), "s"), LocalStudyLock)
    assert isinstance(study_lock(open_storage("sqlite:///:memory:"), "s"), LocalStudyLock)


def test_only_what_is_finished_is_flushed_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(str(tmp_path / "s.journal"))
    flushed = []
    real = os.fsync
    monkeypatch.setattr("archdsl.study.storage.journal.os.fsync", lambda file: (flushed.append(file), real(file))[1])
    with worker.store.lock.held() as now, worker.store.batch():
        lease = worker.leases.acquire(now)
        lease.trial.suggest_int("x", 0, 99)
    worker.leases.write(lease, {f"key{index}": index for index in range(8)})
    assert len(flushed) == 0
    worker.tell(lease, 1.0)
    assert len(flushed) == 1


# --- a campaign that loses its trial --------------------------------------------------------------------------------


def test_a_campaign_drops_what_was_given_to_another_and_goes_on(tmp_path: Path) -> None:
    """In the first network's training, another worker takes the trial over and finishes it."""
    events: list[Any] = []

    def hook(spec: Spec) -> None:
        if len(training.seen) == 1:
            other = fake_campaign(tmp_path, trials=1, joins=True)
            with other._store.lock.held() as now:
                other._history.refresh()
                assert other._leases.requeue_expired(now + LONG, other._history.running) == [0]
            other.run()

    training = FakeTraining(hook)
    campaign = fake_campaign(tmp_path, training=training, trials=3, on_event=events.append)
    records = campaign.run().records
    names = [type(event).__name__ for event in events]
    assert names.count("TrialLost") == 1
    assert [record.state for record in records if not record.cheap] == ["complete"] * 3
    assert [record.number for record in records] == list(range(len(records)))


def wait_until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
