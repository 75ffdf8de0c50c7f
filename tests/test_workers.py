"""Several workers at one study: in threads, as `archdsl search --workers`, and as `archdsl worker` anywhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_study import SPACE, FakeTraining, fake_campaign, fake_space
from test_search_cli import wait_until, zombie

from archdsl.cli.main import run
from archdsl.compiler import identity
from archdsl.errors import Place, Problem, StudyError
from archdsl.files import as_json
from archdsl.language import Spec, load_space
from archdsl.runs.job import job_of, space_of
from archdsl.runs.search import search
from archdsl.runs.search_parts import SearchParts
from archdsl.runs.worker import work
from archdsl.study.config import StudyConfig
from archdsl.study.events import TrialEnded
from archdsl.study.storage.opening import attributes_of, open_storage
from archdsl.study.storage.process_identity import _started_and_state, this_process
from archdsl.study.storage.store import StudyStore, study_lock
from archdsl.study.workers.control import publish_budget, request_stop
from archdsl.study.workers.local import LocalWorkers, partition_cores
from archdsl.telemetry.device_lock import device_lock

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

CHEAP = """
name: cheap
base: micro_swin
choices:
  stages.*.window: [2, 4, 8]
  stages.*.depth: {range: [1, 6]}
  stages.*.mlp_ratio: [1, 2, 3, 4]
objectives: {latency: {runtime: "null"}, params: {}}
search: {trials: 12, sampler: random, start: [micro_swin]}
"""


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "cheap.yaml"
    path.write_text(CHEAP)
    return path


def storage_in(folder: Path, kind: str) -> str:
    return f"sqlite:///{folder}/study.db" if kind == "sqlite" else str(folder / "study.journal")


def in_threads(*work: Callable[[], Any]) -> None:
    errors: list[BaseException] = []

    def run_one(one: Callable[[], Any]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run_one, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# --- in threads ----------------------------------------------------------------------------------------------------


@pytest.mark.promise(23)
@pytest.mark.parametrize(("kind", "trials"), [("journal", 30), ("sqlite", 12)])
def test_eight_workers_keep_to_the_budget_and_pay_for_nothing_twice(tmp_path: Path, kind: str, trials: int) -> None:
    storage = storage_in(tmp_path, kind)
    trainings = [FakeTraining(lambda spec: time.sleep(0.01)) for _ in range(8)]
    first = fake_campaign(tmp_path, storage=storage, trials=trials, sampler="random")
    first.hand_over()
    workers = [
        fake_campaign(tmp_path, storage=storage, training=training, trials=trials, sampler="random", joins=True)
        for training in trainings
    ]
    in_threads(*(worker.run for worker in workers))
    records = first.records()
    paid = [hash for training in trainings for hash in training.seen]
    assert len(paid) == len(set(paid)) == trials
    assert [record.number for record in records] == list(range(len(records)))
    evaluated = [record for record in records if not record.cheap and record.state != "open"]
    assert len(evaluated) == trials and {record.hash for record in evaluated} == set(paid)
    assert not first._history.running, "a trial put off for the network of another is given back, not held"
    assert all(record.state == "complete" for record in records)


def test_a_network_that_another_is_at_is_set_aside_and_its_result_taken(tmp_path: Path) -> None:
    space = fake_space(SPACE.replace("start: [micro_swin, micro_swin_free]", "start: [micro_swin, micro_swin]"))
    other = FakeTraining()

    def hook(spec: Spec) -> None:
        if len(training.seen) == 1:
            wait_until(lambda: leader._store.study.get_trials()[1].user_attrs.get("archdsl:waits_for") == 0)
            assert other.seen == []

    training = FakeTraining(hook)
    leader = fake_campaign(tmp_path, training=training, trials=2, space=space)
    joined = fake_campaign(tmp_path, training=other, trials=2, space=space, joins=True)

    def join() -> None:
        wait_until(lambda: training.seen)
        joined.run()

    in_threads(leader.run, join)
    records = leader.records()
    assert records[1].duplicate_of == 0
    assert records[1].values == records[0].values
    assert len(training.seen + other.seen) == len(set(training.seen + other.seen)) == 2


def test_a_postponed_trial_is_finished_although_the_budget_is_reached_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = fake_space(SPACE.replace("start: [micro_swin, micro_swin_free]", "start: [micro_swin, micro_swin]"))

    def hook(spec: Spec) -> None:
        if len(training.seen) == 1:
            wait_until(lambda: joined._trials.num_postponed == 1)

    training = FakeTraining(hook)
    leader = fake_campaign(tmp_path, training=training, trials=2, space=space)
    joined = fake_campaign(tmp_path, trials=2, space=space, joins=True)
    take = joined._next

    def take_once_the_budget_is_reached(started: float) -> Any:
        if joined._trials.num_postponed:
            wait_until(lambda: leader._store.study.get_trials()[0].state.is_finished())
            publish_budget(leader._store, 1, None)
        return take(started)

    monkeypatch.setattr(joined, "_next", take_once_the_budget_is_reached)

    def join() -> None:
        wait_until(lambda: training.seen)
        joined.run()

    in_threads(leader.run, join)
    records = leader.records()
    assert [record.state for record in records[:2]] == ["complete", "complete"]
    assert records[1].duplicate_of == 0


def test_what_is_at_work_counts_against_the_budget(tmp_path: Path) -> None:
    claims: list[object] = []

    def hook(spec: Spec) -> None:
        joined = fake_campaign(tmp_path, trials=1, joins=True)
        joined._begin()
        claims.append(joined._next(time.monotonic()))

    fake_campaign(tmp_path, training=FakeTraining(hook), trials=1).run()
    assert claims == [None], "no trial to take, and no reason to stop: the one at work may still fail to count"


def test_workers_keep_to_what_the_leader_said_last(tmp_path: Path) -> None:
    fake_campaign(tmp_path, trials=3).hand_over()
    joined = fake_campaign(tmp_path, trials=50, joins=True)
    assert joined.run().reason == "trials"
    assert sum(not record.cheap for record in joined.records()) == 3


def test_a_search_that_starts_after_its_workers_leads_them(tmp_path: Path) -> None:
    at_work, leading = threading.Event(), threading.Event()

    def wait_for_the_leader(spec: Spec) -> None:
        at_work.set()
        assert leading.wait(60)

    worker = fake_campaign(tmp_path, training=FakeTraining(wait_for_the_leader), trials=50, joins=True)
    leader = fake_campaign(tmp_path, training=FakeTraining(lambda spec: leading.set()), trials=4)

    def lead() -> None:
        assert at_work.wait(60)
        leader.run()

    in_threads(worker.run, lead)
    assert sum(not record.cheap for record in leader.records()) == 4, "the worker keeps to the leader's budget"


@pytest.mark.parametrize("second", ["run", "hand_over"])
def test_a_study_has_one_leader_on_a_machine(tmp_path: Path, second: str) -> None:
    refused: list[str] = []

    def hook(spec: Spec) -> None:
        with pytest.raises(StudyError, match=f"process {os.getpid()} is searching this study .*busy") as caught:
            getattr(fake_campaign(tmp_path, trials=1), second)()
        refused.append(str(caught.value.problems[0].rule))
        raise KeyboardInterrupt  # whatever ends it, the next may lead

    with pytest.raises(KeyboardInterrupt):
        fake_campaign(tmp_path, training=FakeTraining(hook), trials=1).run()
    assert refused == ["busy"]
    getattr(fake_campaign(tmp_path, trials=1), second)()


def test_only_a_leader_that_lives_keeps_others_out(tmp_path: Path) -> None:
    campaign = fake_campaign(tmp_path, trials=3)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started, _ = _started_and_state(other.pid)
        campaign._store.write("leader", {**this_process(), "pid": other.pid, "started": started, "mark": "m"})
        with pytest.raises(StudyError, match=f"process {other.pid} is searching this study"):
            campaign.run()
    assert campaign.run().reason == "trials"
    for left in ({**this_process(), "mark": "its own, of a run that could not write"}, {"pid": 1, "host": "elsewhere"}):
        campaign._store.write("leader", left)
        assert fake_campaign(tmp_path, trials=3).run().reason == "trials"


def test_a_timing_waits_for_another_on_the_same_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path))
    inside: list[int] = []
    most: list[int] = []

    def take_time() -> None:
        for _ in range(5):
            with device_lock("cpu"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    in_threads(*[take_time] * 4)
    assert max(most) == 1


def test_cores_are_shared_out() -> None:
    assert partition_cores(range(8), 3) == [frozenset({0, 1, 2}), frozenset({3, 4, 5}), frozenset({6, 7})]
    assert partition_cores(range(8), 4, least=4) == [None] * 4, "a share would be too small to take times on"
    assert partition_cores(range(2), 4) == [None] * 4
    assert partition_cores(None, 2) == [None] * 2


def look_on(workers: LocalWorkers) -> None:
    while workers.poll(0):
        time.sleep(0.02)


def test_workers_that_die_again_and_again_are_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, sys; print('no memory', file=sys.stderr, flush=True); os.abort()"]
    workers = LocalWorkers(command, 1, environment=dict(os.environ), logs=tmp_path)
    workers.start()
    with pytest.raises(
        StudyError, match="keep ending by SIGABRT before a trial is finished; the last line of one: no memory"
    ):
        look_on(workers)
    workers.stop()


def test_stopping_asks_first_and_then_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archdsl.study.workers.local.STOP_S", 1.0)
    code = (
        "import os, signal, sys, time\n"
        "def heard(*_):\n"
        "    print('heard', file=sys.stderr, flush=True)\n"
        "signal.signal(signal.SIGTERM, heard)\n"
        "print('ready', file=sys.stderr, flush=True)\n"
        "while True: time.sleep(60)"
    )
    workers = LocalWorkers([sys.executable, "-c", code], 2, environment=dict(os.environ), logs=tmp_path)
    workers.start()
    pids = workers.pids
    logs = [tmp_path / "worker-1.log", tmp_path / "worker-2.log"]
    wait_until(lambda: all("ready" in log.read_text() for log in logs))
    workers.stop()
    assert [log.read_text().split() for log in logs] == [["ready", "heard"]] * 2
    assert not alive(pids)
    assert workers.pids == []


def test_who_leads_reports_each_trial_of_its_workers_once(tmp_path: Path) -> None:
    told: list[int] = []

    def on_event(event: object) -> None:
        if isinstance(event, TrialEnded):
            told.append(event.record.number)

    fake_campaign(tmp_path, trials=2).run()
    leader = fake_campaign(tmp_path, trials=5, on_event=on_event)
    leader.hand_over()

    class InTurns:
        """A worker that runs a trial whenever it is looked at."""

        def start(self) -> None: ...
        def stop(self) -> None: ...
        def poll(self, progress: int) -> bool:
            return bool(fake_campaign(tmp_path, trials=5, joins=True).run().records) and progress < 5

    leader.lead(InTurns())
    assert sorted(told) == [2, 3, 4], "those that were there before were reported then"


def test_deaths_are_counted_from_the_last_trial_that_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archdsl.study.workers.local.MOST_DEATHS", 1)
    monkeypatch.setattr("archdsl.study.workers.local._RESTART_S", 0.0)
    workers = LocalWorkers(
        [sys.executable, "-c", "raise SystemExit(9)"], 1, environment=dict(os.environ), logs=tmp_path
    )
    workers.start()
    for finished in range(4):  # a trial between two deaths: never one too many
        (pid,) = workers.pids
        wait_until(lambda pid=pid: not workers.pids or workers.pids != [pid])
        wait_until(lambda finished=finished, pid=pid: workers.poll(finished) and workers.pids not in ([], [pid]))
    with pytest.raises(StudyError, match="keep ending with exit code 9"):
        look_on(workers)
    workers.stop()


@pytest.mark.parametrize(("code", "is_told"), [(1, True), (2, True), (3, False)])
def test_a_worker_that_ends_with_a_problem_of_its_own_has_told_it(code: int, is_told: bool, tmp_path: Path) -> None:
    problem = Problem(Place("x", 1, 1), "busy", "somebody is here")
    (tmp_path / "told").write_text(as_json({"ok": False, "errors": [problem.as_json()]}))
    show = f"print(open({str(tmp_path / 'told')!r}).read(), flush=True); raise SystemExit({code})"
    command = [sys.executable, "-c", show]
    workers = LocalWorkers(command, 1, environment=dict(os.environ), logs=tmp_path)
    workers.start()
    with pytest.raises(StudyError) as caught:
        look_on(workers)
    workers.stop()
    assert (caught.value.problems[0].rule == "busy") == is_told, caught.value


# --- the study says what is to be done ------------------------------------------------------------------------------


def test_a_job_gives_the_same_networks_on_a_machine_without_the_files(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("name: own\nextends: micro_swin\nhead: {classes: 7}\n")
    text = SPACE.replace("base: micro_swin", "base: own.yaml").replace("start: [micro_swin, micro_swin_free]", "")
    (tmp_path / "space.yaml").write_text(text)
    space = load_space(tmp_path / "space.yaml")
    plan = StudyConfig("fake", (), 10, 0, "random")
    job = json.loads(json.dumps(job_of(space, plan, [], None)))
    again = space_of(job)
    assert [choice.name for choice in again.choices] == [choice.name for choice in space.choices]
    for assignment in list(space.iterate())[::7]:
        assert identity(again.spec(assignment)) == identity(space.spec(assignment))


def test_a_recipe_of_ones_own_travels_in_the_job(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: quick\nlr: 0.003\nclip_grad: null\n")
    accuracy = "objectives: {accuracy: {train: {data: synthetic, recipe: mine.yaml, epochs: 3}}, params: {}}"
    (tmp_path / "space.yaml").write_text(re.sub("objectives: .*", accuracy, CHEAP))
    space = load_space(tmp_path / "space.yaml")
    recipe = SearchParts(space, [], None).recipe
    job = json.loads(json.dumps(job_of(space, StudyConfig("cheap", (), 10, 0, "random"), [], None, recipe)))
    (tmp_path / "mine.yaml").unlink()
    assert SearchParts(space_of(job), [], None).recipe == recipe
    assert (recipe.name, recipe.epochs, recipe.lr) == ("mine", 3, 0.003)


def test_a_worker_that_would_train_otherwise_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = "objectives: {accuracy: {train: {data: synthetic, recipe: quick}}, params: {}}"
    (tmp_path / "space.yaml").write_text(re.sub("objectives: .*", accuracy, CHEAP))
    storage = str(tmp_path / "study.journal")
    search(tmp_path / "space.yaml", out=tmp_path / "run", storage=storage, workers=0)
    opened = open_storage(storage)
    (study,) = opened.get_all_studies()
    job = attributes_of(opened)["cheap"]["job"]
    job["space"] = job["space"].replace("lr: 0.004", "lr: 0.4")
    opened.set_study_user_attr(study._study_id, "archdsl:job", job)
    assert run(["worker", "--storage", storage, "--out", str(tmp_path / "here")]) == 1
    assert "accuracy.recipe.lr: 0.004 -> 0.4" in capsys.readouterr().err


def test_a_folder_that_a_worker_used_is_taken_up_by_others(space: Path, tmp_path: Path) -> None:
    storage, here = str(tmp_path / "study.journal"), tmp_path / "here"
    search(space, out=tmp_path / "run", storage=storage, workers=0)
    here.mkdir()
    (here / ".search.json.1a2b.new").write_text("{")  # a worker that started with this one writes it just now
    work(storage, out=here)
    (here / "trainings.jsonl").touch()
    work(storage, out=here)
    assert search(space, out=here, storage=storage).reason == "trials"


@pytest.mark.parametrize("lease", ["0", "0.5s", "10ms"])
def test_a_lease_that_could_not_be_kept_is_refused(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lease: str
) -> None:
    for command in (["search", str(space), "--out", str(tmp_path / "run")], ["worker", "--storage", "nowhere"]):
        assert run([*command, "--lease", lease]) == 1
        assert f"--lease must be at least 1 s, but got '{lease}' [out-of-range]" in capsys.readouterr().err


def test_a_worker_needs_the_storage_alone(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    ready = search(space, out=tmp_path / "run", storage=url, workers=0)
    assert ready.reason == "handed-over"
    assert len(ready.records) == 1, "the known design waits"
    space.unlink()
    assert run(["worker", "--storage", url, "--out", str(tmp_path / "here"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["study"], said["stopped_by"], said["lost"]) == ("cheap", "trials", [])
    study = optuna.load_study(study_name="cheap", storage=url)
    paid = [trial for trial in study.trials if not trial.user_attrs.get("archdsl:cheap")]
    assert len(paid) == 12
    assert run(["worker", "--storage", url, "--out", str(tmp_path / "here")]) == 0
    assert "0 trials finished here" in capsys.readouterr().out


def test_a_worker_with_other_versions_says_so_and_refuses(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    search(space, out=tmp_path / "run", workers=0, trials=2)
    command = ["worker", "--storage", str(tmp_path / "run/study.journal"), "--out", str(tmp_path / "here")]
    found = "archdsl.runs.worker.versions"
    monkeypatch.setattr(found, lambda: {"archdsl": "9.9", "torch": "1.0", "optuna": "5.0.0"})
    assert run(command) == 1
    assert "-> 9.9" in capsys.readouterr().err
    assert run([*command, "--force"]) == 0


def test_a_worker_on_another_device_says_so_and_refuses(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    search(space, out=tmp_path / "run", workers=0, trials=2)
    command = ["worker", "--storage", str(tmp_path / "run/study.journal"), "--out", str(tmp_path / "here")]
    monkeypatch.setattr("archdsl.runtimes.adapters.null.Null.device_name", lambda self, device: "another device")
    assert run(command) == 1
    err = capsys.readouterr().err
    assert "latency" in err and "another device" in err
    assert run([*command, "--force"]) == 0


def test_a_worker_says_what_it_can_work_at(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    open_storage(url)
    assert run(["worker", "--storage", url]) == 1
    assert "no study here that archdsl has begun" in capsys.readouterr().err
    search(space, out=tmp_path / "run", storage=url, workers=0)
    search(space, out=tmp_path / "run2", storage=url, workers=0, set={"name": "other"})
    assert run(["worker", "--storage", url]) == 1
    assert "choose one with --study: cheap, other" in capsys.readouterr().err
    assert run(["worker", "--storage", url, "--study", "chaep"]) == 1
    assert "did you mean `cheap`?" in capsys.readouterr().err


# --- processes -----------------------------------------------------------------------------------------------------


def leader_of(space: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "archdsl", "search", str(space), "--out", str(out), "--workers", "2", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def workers_of(leader: int) -> list[int]:
    from kill_workers import workers_of

    return workers_of(leader)


def alive(pids: list[int]) -> bool:
    return any(Path(f"/proc/{pid}/stat").exists() and not zombie(pid) for pid in pids)


def test_two_workers_search_together_and_the_front_is_written(space: Path, tmp_path: Path) -> None:
    leader = leader_of(space, tmp_path / "run", "--json")
    out, err = leader.communicate(timeout=120)
    assert leader.returncode == 0, err
    result = json.loads(out)
    assert (result["stopped_by"], result["networks_paid_for"]) == ("trials", 12)
    assert (tmp_path / "run/front.csv").is_file()
    said = [json.loads((tmp_path / f"run/workers/worker-{number}.json").read_text()) for number in (1, 2)]
    assert sorted(number for one in said for number in one["finished"]) == list(range(result["trials"]))


@pytest.mark.promise(19)
def test_ctrl_c_on_the_leader_ends_all_workers(space: Path, tmp_path: Path) -> None:
    leader = leader_of(space, tmp_path / "run", "--trials", "5000")
    assert leader.stderr is not None
    for line in leader.stderr:
        if line.startswith("[2/"):
            break
    workers = workers_of(leader.pid)
    assert len(workers) == 2
    begun = time.monotonic()
    os.killpg(leader.pid, signal.SIGINT)
    _, err = leader.communicate(timeout=30)
    assert leader.returncode == 130, err
    assert time.monotonic() - begun < 10
    assert not alive(workers)
    storage = open_storage(tmp_path / "run/study.journal")
    states = {trial.state.name for trial in optuna.load_study(study_name="cheap", storage=storage).trials}
    assert "RUNNING" not in states
    assert (tmp_path / "run/front.csv").is_file()


@pytest.mark.promise(19)
def test_workers_end_when_their_leader_is_killed(space: Path, tmp_path: Path) -> None:
    leader = leader_of(space, tmp_path / "run", "--trials", "5000")
    assert leader.stderr is not None
    for line in leader.stderr:
        if line.startswith("[1/"):
            break
    workers = workers_of(leader.pid)
    leader.kill()
    leader.communicate()
    wait_until(lambda: not alive(workers))
    result = search(space, out=tmp_path / "run", trials=1)
    assert result.reason == "trials"
    assert all(record.state != "open" or record.hash is None for record in result.records[:1])


def test_a_worker_elsewhere_heeds_a_stop(space: Path, tmp_path: Path) -> None:
    ready = search(space, out=tmp_path / "run", trials=5000, workers=0)
    command = [sys.executable, "-m", "archdsl", "worker", "--storage", ready.storage, "--out", str(tmp_path / "here")]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    for line in worker.stderr:
        if line.startswith("[1/"):
            break
    begun = time.monotonic()
    storage = open_storage(ready.storage)
    study = optuna.load_study(study_name="cheap", storage=storage)
    request_stop(StudyStore(study, study_lock(storage, "cheap")))
    out, _ = worker.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert worker.returncode == 130
    assert "ended: interrupted" in out


@pytest.mark.promise(16)
def test_killing_workers_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kill_workers import kill_workers

    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    found = kill_workers(None, tmp_path, workers=2, kills=6, trials=80, seed=1)
    assert found["kills"] >= 4
    bad = ("lost", "changed", "paid_for_twice", "numbers_missing_or_double", "orphaned")
    assert {name: found[name] for name in bad} == dict.fromkeys(bad, 0)
    assert found["completed"], (tmp_path / "log").read_text()
