"""The search loop: duplicates, constraints, failures, stopping, resuming, signals and kills."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_study import (
    SPACE,
    FakeTraining,
    fake_accuracy,
    fake_campaign,
    fake_latency,
    fake_space,
    fake_timing,
    long_ago,
)

from archdsl.compiler import cost, identity
from archdsl.errors import ArchError, Place, Problem, StudyError, TrainingError
from archdsl.events import Event
from archdsl.failures import failed
from archdsl.language import Spec
from archdsl.latency import close_workers
from archdsl.runtimes.target import Target
from archdsl.study.candidate import Assessor
from archdsl.study.events import Began, StepBegan, TrialBegan, TrialEnded
from archdsl.study.front.pareto import has_gained
from archdsl.study.interrupts import Interrupted, Interrupts
from archdsl.study.latency_evaluator import LatencyEvaluator
from archdsl.study.objectives import OBJECTIVES, BadValues, checked, chosen
from archdsl.study.proposals.parameters import suggest, value_of
from archdsl.study.proposals.samplers import SAMPLERS, Keyed, settled
from archdsl.study.record import Record
from archdsl.study.storage.process_identity import is_gone, this_process
from archdsl.study.workers.control import read_control

SMALL = SPACE.replace("[2, 4, 8]", "[2]").replace("{range: [1, 3]}", "[2]")
"""Eight settings, each another network."""


def told(records: tuple[Record, ...]) -> list[tuple[Any, ...]]:
    """What must be the same in two studies that saw the same."""
    return [(r.number, r.state, dict(r.assignment), r.hash, r.values, r.duplicate_of, r.reason) for r in records]


# --- what one trial is ---------------------------------------------------------------------------------------------


def test_known_designs_come_first_under_their_names(tmp_path: Path) -> None:
    records = fake_campaign(tmp_path, trials=3).run().records
    assert [record.name for record in records[:2]] == ["micro_swin", "micro_swin_free"]
    assert records[0].hash == identity("micro_swin")


def test_a_trial_keeps_everything_as_plain_attributes(tmp_path: Path) -> None:
    campaign = fake_campaign(tmp_path, trials=1)
    campaign.run()
    trial = campaign._store.study.get_trials()[0]
    kept = trial.user_attrs
    spec = fake_space().base
    assert kept["archdsl:hash"] == identity(spec)
    assert kept["archdsl:params"] == cost(spec).params
    assert kept["archdsl:macs"] == cost(spec).macs
    assert kept["archdsl:timing"]["median_ms"] == trial.values[1] == cost(spec).macs / 1e6
    assert kept["archdsl:accuracy"]["mean"] == trial.values[0]
    assert set(kept["archdsl:picks"]) == {choice.name for choice in fake_space().choices}
    assert json.loads(json.dumps(kept)) == kept


def test_no_network_is_paid_for_twice(tmp_path: Path) -> None:
    training = FakeTraining()
    records = fake_campaign(tmp_path, training=training, trials=30, sampler="random").run().records
    duplicates = [record for record in records if record.duplicate_of is not None]
    assert len(training.seen) == len(set(training.seen)) == 30
    assert duplicates
    for record in duplicates:
        original = records[record.duplicate_of or 0]
        assert (record.hash, record.values, record.timing) == (original.hash, original.values, original.timing)


def test_a_space_ends_when_every_network_has_been_seen(tmp_path: Path) -> None:
    space = fake_space(SMALL)
    hashes = {identity(space.spec(assignment)) for assignment in space.iterate()}
    training = FakeTraining()
    outcome = fake_campaign(tmp_path, training=training, trials=1000, num_distinct=len(hashes), space=space).run()
    assert outcome.reason == "exhausted"
    assert set(training.seen) == hashes


def test_it_ends_when_a_number_of_networks_brought_no_gain(tmp_path: Path) -> None:
    campaign = fake_campaign(tmp_path, trials=1000, sampler="random", patience=8)
    outcome = campaign.run()
    assert outcome.reason == "no-gain"
    paid = [record for record in outcome.records if not record.cheap]
    objectives = campaign.config.objectives
    assert not has_gained(paid, objectives, 8)
    assert all(has_gained(paid[:number], objectives, 8) for number in range(len(paid)))


def test_a_space_of_unknown_size_ends_when_nothing_new_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archdsl.study.campaign.MOST_CHEAP", 60)
    outcome = fake_campaign(tmp_path, trials=1000, space=fake_space(SMALL)).run()
    assert outcome.reason == "nothing-new"
    assert len({record.hash for record in outcome.records}) == 8


def test_counts_are_checked_before_anything_is_paid(tmp_path: Path) -> None:
    limit = cost("micro_swin").params  # a third block in the first stage is too much
    space = fake_space(f"{SPACE}\nconstraints: {{params: {{max: {limit}}}}}")
    training, asked = FakeTraining(), []

    def latency(spec: Spec) -> Any:
        asked.append(cost(spec).params)
        return fake_latency(spec)

    outcome = fake_campaign(tmp_path, training=training, latency=latency, trials=12, space=space).run()
    infeasible = [record for record in outcome.records if record.state == "infeasible" and record.duplicate_of is None]
    assert infeasible
    assert max(asked) <= limit
    assert all(record.cheap and record.values is None for record in infeasible)
    assert all("must be at most" in (record.reason or "") for record in infeasible)
    assert len(training.seen) == 12


def test_a_latency_constraint_is_checked_before_training(tmp_path: Path) -> None:
    space = fake_space(f"{SPACE}\nconstraints: {{latency: {{max: 2.4 ms}}}}")
    trained: list[Spec] = []
    outcome = fake_campaign(tmp_path, training=FakeTraining(trained.append), trials=12, space=space).run()
    broken = [record for record in outcome.records if record.state == "infeasible" and record.duplicate_of is None]
    assert broken
    assert all(record.timing is not None and record.accuracy is None and not record.cheap for record in broken)
    assert all(fake_latency(spec).median_ms <= 2.4 for spec in trained)


def test_an_accuracy_constraint_keeps_a_network_off_the_front_but_tells_its_values(tmp_path: Path) -> None:
    space = fake_space(f"{SPACE}\nconstraints: {{accuracy: {{min: 0.5}}}}")
    records = fake_campaign(tmp_path, trials=12, space=space).run().records
    low = [record for record in records if record.accuracy is not None and record.accuracy.mean < 0.5]
    assert low
    assert all(record.state == "infeasible" for record in low)


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (failed("crash", "the worker crashed"), "crash"),
        (failed("numeric-gate", "the logits differ"), "numeric-gate"),
        (TrainingError(Problem(Place("training"), "diverged", "the loss is not a number")), "diverged"),
        (ArchError(Problem(Place("x"), "odd", "whatever")), "odd"),
        (MemoryError(), "out-of-memory"),
        (ZeroDivisionError("oops"), "exception"),
    ],
)
def test_a_bad_network_costs_one_trial(tmp_path: Path, error: Exception, rule: str) -> None:
    def hook(spec: Spec) -> None:
        if identity(spec) == identity("micro_swin_free"):
            raise error

    outcome = fake_campaign(tmp_path, training=FakeTraining(hook), trials=5).run()
    assert outcome.reason == "trials"
    assert [record.state for record in outcome.records if not record.cheap] == ["complete", "failed", *["complete"] * 3]
    assert outcome.records[1].rule == rule
    assert outcome.records[1].reason


def test_a_search_in_which_everything_fails_stops(tmp_path: Path) -> None:
    def hook(spec: Spec) -> None:
        raise failed("crash", "the worker crashed (SIGSEGV)")

    campaign = fake_campaign(tmp_path, training=FakeTraining(hook), trials=100)
    with pytest.raises(StudyError, match="first 3 networks all failed alike: the worker crashed"):
        campaign.run()


@pytest.mark.promise(24)
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0.5, float("nan")], "latency is nan"),
        ([0.5, float("inf")], "latency is inf"),
        ([float("-inf"), 1.0], "accuracy is -inf"),
        ([0.5, None], "latency is None"),
        ([0.5, "1"], "latency is '1'"),
        ([True, 1.0], "accuracy is True"),
        ([0.5, 1e301], "beyond"),
        ([0.5, 10**400], "not a number"),
        ([0.5], "1 values came for 2"),
        ([0.5, 1.0, 2.0], "3 values came for 2"),
        ([], "0 values"),
        (0.5, "not a list"),
        (None, "not a list"),
        ("ab", "not a list"),
    ],
)
def test_bad_values_never_reach_the_study(tmp_path: Path, values: Any, why: str) -> None:
    objectives = chosen(["latency"], ["accuracy", "latency"])
    with pytest.raises(BadValues, match=why):
        checked(values, objectives)

    class Odd(Assessor):
        count = 0

        def assess(self, candidate: Any, say: Any, keep: Any) -> Any:
            Odd.count += 1
            return ([0.5, 1.0] if Odd.count != 2 else values), {}

    space = fake_space()
    assessor = Odd(space, objectives, latency=fake_latency, accuracy=FakeTraining())
    records = fake_campaign(tmp_path, assessor=assessor, trials=3).run().records
    assert records[1].state == "failed"
    assert records[1].rule == "bad-values"
    assert why in (records[1].reason or "")
    assert records[1].values is None


def test_numpy_numbers_are_values() -> None:
    import numpy as np

    objectives = chosen(["latency"], ["accuracy", "latency"])
    assert checked([np.float32(0.5), np.int64(2)], objectives) == [0.5, 2.0]


def test_the_null_runtime_times_in_a_worker(tmp_path: Path) -> None:
    try:
        records = fake_campaign(tmp_path, latency=LatencyEvaluator(Target("null")), trials=3).run().records
    finally:
        close_workers()
    assert all(record.timing is not None and record.timing.runtime == "null" for record in records)


def test_events_come_in_order_and_after_the_trial_is_stored(tmp_path: Path) -> None:
    events: list[Event] = []
    campaign = fake_campaign(tmp_path, trials=2)

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialEnded):
            assert campaign.records()[event.record.number].state == "complete"

    campaign.on_event = listen
    campaign.run()
    assert [type(event).__name__ for event in events] == [
        "Began",
        *["TrialBegan", "StepBegan", "StepBegan", "TrialEnded"] * 2,
        "Ended",
    ]
    assert [event.step for event in events if isinstance(event, StepBegan)] == ["latency", "training"] * 2
    assert [event.name for event in events if isinstance(event, TrialBegan)] == ["micro_swin", "micro_swin_free"]


def test_a_time_limit_begins_no_trial_that_would_end_too_late(tmp_path: Path) -> None:
    slow = FakeTraining(lambda spec: time.sleep(0.4))
    begun = time.monotonic()
    outcome = fake_campaign(tmp_path, training=slow, trials=100, time_limit_s=1.5).run()
    assert outcome.reason == "time"
    assert time.monotonic() - begun < 2.5
    assert 1 <= len(slow.seen) <= 3


# --- objectives and samplers ---------------------------------------------------------------------------------------


def test_objectives_from_the_command_line_go_against_accuracy() -> None:
    offered = ["accuracy", "latency"]
    assert [o.name for o in chosen(["latency"], offered)] == ["accuracy", "latency"]
    assert [o.name for o in chosen(["params", "accuracy"], offered)] == ["accuracy", "params"]
    assert [o.name for o in chosen([], offered)] == ["accuracy", "latency"]
    assert [o.name for o in chosen(["latency", "macs"], ["latency"])] == ["latency", "macs"], "no accuracy on offer"


def test_an_unknown_objective_is_named_with_what_was_meant() -> None:
    with pytest.raises(StudyError, match=r"--objective:1:1: .*`latencyy`(?s:.*)did you mean `latency`"):
        chosen(["latencyy"], ["accuracy"])
    with pytest.raises(StudyError, match="does not say how accuracy"):
        chosen(["accuracy"], ["latency"])


def test_every_objective_says_which_way_is_better() -> None:
    assert {name: objective.direction for name, objective in OBJECTIVES.items()} == {
        "accuracy": "maximize",
        "latency": "minimize",
        "throughput": "maximize",
        "peak_memory": "minimize",
        "energy": "minimize",
        "latency_estimate": "minimize",
        "params": "minimize",
        "macs": "minimize",
    }


def test_a_choice_is_a_range_of_numbers_or_a_category() -> None:
    choices = {choice.name: choice for choice in fake_space().choices}
    assert [value_of(choices["stages.0.depth"], index) for index in range(3)] == [1, 2, 3]
    assert [value_of(choices["stages.0.window"], index) for index in range(3)] == ["2", "4", "8"]
    assert value_of(choices["defaults"], 1) == "{norm: batch, act: relu}"


def test_long_labels_are_cut_and_stay_apart() -> None:
    start = "https://example.org/" + "x" * 60
    space = fake_space(SPACE.replace("stages.0.window: [2, 4, 8]", f"source: [{start}a, {start}b]"))
    choice = next(choice for choice in space.choices if choice.name == "source")
    values = [str(value_of(choice, index)) for index in range(2)]
    assert values[0] != values[1]
    assert max(map(len, values)) < 70


def test_auto_chooses_a_sampler_and_says_why() -> None:
    assert settled("auto", 12)[0] == "ehvi"
    assert settled("auto", 50_000) == ("nsga2", settled("auto", 50_000)[1])
    assert "12" in settled("auto", 12)[1]
    with pytest.raises(StudyError, match="no sampler `tpee`"):
        settled("tpee", 12)


# --- resuming ------------------------------------------------------------------------------------------------------


class Stop(BaseException):
    """Stands for whatever ends a process in the middle of a trial."""


def run_with_cuts(folder: Path, sampler: str, cuts: set[int], trials: int) -> tuple[Record, ...]:
    """Run a study in a new `Campaign` after each cut; a cut strikes in the training of that many networks."""
    paid = 0

    def hook(spec: Spec) -> None:
        nonlocal paid
        paid += 1
        if paid in cuts:
            raise Stop

    for _ in range(len(cuts) + 1):
        campaign = fake_campaign(folder, training=FakeTraining(hook), trials=trials, sampler=sampler)
        try:
            return campaign.run().records
        except Stop:
            forget_owner(campaign)
    raise AssertionError("not finished")


def forget_owner(campaign: Any) -> None:
    """Make the running trials look like those of a process that is gone."""
    for trial in campaign._store.study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            gone = {**this_process(), "pid": 2**22 + 1}
            campaign._store.study._storage.set_trial_user_attr(trial._trial_id, "archdsl:owner", gone)


@pytest.mark.promise(26)
@pytest.mark.parametrize("kind", ["journal", "turns"])
def test_a_disk_that_is_full_from_the_nth_write_on_ends_the_search_and_with_room_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """For n over the writes of a search: what was finished is there, and the same command comes to the same end."""
    whole = told(fake_campaign(tmp_path, trials=3).run().records)
    real = {"write": os.write, "pwrite": os.pwrite}
    name = "write" if kind == "journal" else "pwrite"
    for room in range(0, 120, 6):
        folder = tmp_path / str(room)
        folder.mkdir()
        written = 0

        def write(descriptor: int, *more: Any, room: int = room) -> int:
            nonlocal written
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path)):
                written += 1
                if written > room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real[name](descriptor, *more)

        monkeypatch.setattr(os, name, write)
        if written_of(folder) == whole:
            break
        monkeypatch.undo()
        assert written > room
        resumed = fake_campaign(folder, trials=3)
        forget_owner(resumed)
        assert told(resumed.run().records) == whole, room
    else:
        raise AssertionError("the search never had room enough")
    assert room > 6


def written_of(folder: Path) -> list[tuple[Any, ...]] | None:
    """What a search comes to; None when it ends for want of room."""
    try:
        return told(fake_campaign(folder, trials=3).run().records)
    except StudyError as error:
        if "No space left on device [cannot-write]" not in error.text():
            raise
        return None


@pytest.mark.promise(20)
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_study_cut_ten_times_is_the_uninterrupted_one(tmp_path: Path, sampler: str) -> None:
    (tmp_path / "cut").mkdir()
    whole = fake_campaign(tmp_path, trials=20, sampler=sampler).run().records
    cut = run_with_cuts(tmp_path / "cut", sampler, {1, 3, 4, 8, 9, 12, 15, 20, 24, 28}, 20)
    assert told(cut) == told(whole)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_study_cut_in_the_middle_of_a_proposal_is_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    (tmp_path / "cut").mkdir()
    whole = fake_campaign(tmp_path, trials=14, sampler=sampler).run().records
    asked = 0

    def suggested(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked in (8, 17, 31, 48, 60, 77):
            raise Stop
        return suggest(*arguments)

    monkeypatch.setattr("archdsl.study.proposals.parameters.suggest", suggested)
    for _ in range(6):
        campaign = fake_campaign(tmp_path / "cut", trials=14, sampler=sampler)
        with pytest.raises(Stop):
            campaign.run()
        forget_owner(campaign)
    assert told(fake_campaign(tmp_path / "cut", trials=14, sampler=sampler).run().records) == told(whole)


def test_a_study_that_is_given_more_trials_is_the_longer_one(tmp_path: Path) -> None:
    (tmp_path / "grown").mkdir()
    whole = fake_campaign(tmp_path, trials=20).run().records
    fake_campaign(tmp_path / "grown", trials=13).run()
    assert told(fake_campaign(tmp_path / "grown", trials=20).run().records) == told(whole)


def test_another_seed_proposes_other_networks(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = fake_campaign(tmp_path, trials=12).run().records
    second = fake_campaign(tmp_path / "other", trials=12, seed=1).run().records
    assert [record.assignment for record in first] != [record.assignment for record in second]


def test_a_finished_study_pays_for_nothing_more(tmp_path: Path) -> None:
    fake_campaign(tmp_path, trials=5).run()
    training, events = FakeTraining(), []
    outcome = fake_campaign(tmp_path, training=training, trials=5, on_event=events.append).run()
    assert (outcome.reason, training.seen) == ("trials", [])
    assert isinstance(events[0], Began)
    assert len(events[0].known) == 5


def test_sqlite_resumes_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    calls = 0

    def hook(spec: Spec) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Stop

    campaign = fake_campaign(tmp_path, training=FakeTraining(hook), trials=4, storage=url)
    with pytest.raises(Stop):
        campaign.run()
    forget_owner(campaign)
    whole = fake_campaign(tmp_path, trials=4).run().records
    assert told(fake_campaign(tmp_path, trials=4, storage=url).run().records) == told(whole)


@pytest.mark.promise(21)
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"sampler": "random"}, 'sampler: "tpe" -> "random"'),
        ({"fixed": {"accuracy": {"recipe": {"epochs": 5}}}}, "accuracy.recipe.epochs: 2 -> 5"),
        ({"fixed": {}}, "accuracy: {"),
    ],
)
def test_resuming_with_other_settings_is_refused_with_a_diff(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    fixed = {"accuracy": {"recipe": {"epochs": 2}}}
    fake_campaign(tmp_path, trials=2, fixed=fixed).run()
    with pytest.raises(StudyError) as caught:
        fake_campaign(tmp_path, trials=2, **{"fixed": fixed, **changes})
    assert line in caught.value.text()
    assert "--fresh" in (caught.value.problems[0].hint or "")


def test_a_study_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    import optuna

    from archdsl.study.storage.opening import open_storage

    storage = open_storage(tmp_path / "study.journal")
    optuna.create_study(study_name="fake", storage=storage, direction="minimize")
    with pytest.raises(StudyError, match="archdsl did not make it"):
        fake_campaign(tmp_path)


def test_a_process_is_known_by_its_id_and_its_start() -> None:
    mine = this_process()
    assert not is_gone(mine)
    assert is_gone({**mine, "started": long_ago()}), "the id belongs to another process now"
    assert is_gone({**mine, "pid": 2**22 + 1})
    assert not is_gone({**mine, "host": "elsewhere", "pid": 2**22 + 1}), "only the host itself can tell"
    assert is_gone(None)


# --- signals and kills ---------------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from archdsl.study.events import TrialEnded, StepBegan
from fake_study import FakeTraining, fake_campaign

folder, trials, delay = Path(sys.argv[1]), int(sys.argv[3]), float(sys.argv[4])
acks = os.open(folder / "acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def listen(event):
    if isinstance(event, TrialEnded):
        os.write(acks, f"{event.record.number} {event.record.values}\\n".encode())
        os.fsync(acks)
    if isinstance(event, StepBegan) and event.step == "training":
        print("training", flush=True)

campaign = fake_campaign(folder, training=FakeTraining(lambda spec: time.sleep(delay)), trials=trials, on_event=listen)
print("ready", flush=True)
outcome = campaign.run()
print(outcome.reason, flush=True)
sys.exit(130 if outcome.reason == "interrupted" else 0)
"""


def start(folder: Path, trials: int, delay: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(folder), str(Path(__file__).parent), str(trials), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(child: subprocess.Popen[str], word: str, times: int = 1) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        times -= line.strip() == word
        if not times:
            return
    raise AssertionError(f"the child ended before it said {word!r}")


@pytest.mark.promise(19)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    child = start(tmp_path, 50, 30.0)
    wait_for(child, "training")
    begun = time.monotonic()
    child.send_signal(number)
    out, _ = child.communicate(timeout=20)
    assert time.monotonic() - begun < 10
    assert (child.returncode, out.split()[-1]) == (130, "interrupted")
    states = [trial.state.name for trial in fake_campaign(tmp_path)._store.study.get_trials()]
    assert "RUNNING" not in states
    assert states[0] == "WAITING"


@pytest.mark.promise(19)
def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "from archdsl.study.interrupts import Interrupts\n"
        "with Interrupts() as interrupts:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    wait_for(child, "ready")
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None, "the first one is only remembered outside of `interruptible`"
    child.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert child.wait(timeout=5) == 130
    assert time.monotonic() - begun < 1


@pytest.mark.promise(16)
def test_however_it_is_ended_it_loses_no_finished_trial_and_goes_on_exactly(tmp_path: Path) -> None:
    """Ten ends at odd moments; then the study is finished, and is the one that was never ended."""
    for kill in range(10):
        child = start(tmp_path, 24, 0.01)
        wait_for(child, "ready")
        time.sleep(0.05 + 0.02 * kill)
        child.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[kill % 4])
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
        acknowledged = (tmp_path / "acks").read_text().splitlines()
        records = fake_campaign(tmp_path).records()
        finished = {f"{record.number} {record.values}" for record in records if record.state != "open"}
        assert set(acknowledged) <= finished, "an acknowledged trial is lost or changed"
        assert len(acknowledged) == len(set(acknowledged)), "a trial was finished twice"
    (tmp_path / "whole").mkdir()
    whole = fake_campaign(tmp_path / "whole", trials=24).run().records
    assert told(fake_campaign(tmp_path, trials=24).run().records) == told(whole)


def test_fakes_are_valid() -> None:
    assert fake_timing(1.0, 0.1).plus_minus_ms == pytest.approx(0.1)
    assert fake_accuracy(0.5).mean == 0.5


def test_a_campaign_that_was_interrupted_runs_again_and_has_stopped_who_joined(tmp_path: Path) -> None:
    training = FakeTraining(lambda spec: os.kill(os.getpid(), signal.SIGINT) if len(training.seen) == 2 else None)
    campaign = fake_campaign(tmp_path, training=training, trials=4)
    assert campaign.run().reason == "interrupted"
    assert read_control(campaign._store)["stop"]
    assert campaign.run().reason == "trials"
    assert read_control(campaign._store)["stop"] is None


@pytest.mark.parametrize("where", ["looking ahead", "proposing", "choosing", "building", "confirming"])
def test_a_signal_between_trainings_is_heeded_however_long_a_network_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What takes seconds for a large network is left at once: nothing of it is called again, or runs to its end."""
    calls, ended = 0, 0

    def struck(fine: Any, at: int) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal calls, ended
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGTERM)
            found = fine(*arguments)
            ended += calls >= at
            return found

        return call

    retimed: Any = SimpleNamespace(retime={"": lambda specs: []}, retrain=None, num_seeds=0)
    sampler = "ehvi" if where in ("looking ahead", "proposing") else "tpe"
    reevaluation = retimed if where == "confirming" else None
    campaign = fake_campaign(tmp_path, trials=4, sampler=sampler, reevaluation=reevaluation)
    if sampler == "ehvi":
        campaign._proposer.known_costs = struck(campaign._proposer.known_costs, 7)
    elif where == "choosing":
        monkeypatch.setattr("archdsl.study.proposals.parameters.suggest", struck(suggest, 7))
    else:
        if where == "confirming":
            fake_campaign(tmp_path, trials=4).run()
        campaign.assessor.candidate = struck(campaign.assessor.candidate, 2)  # type: ignore[method-assign]
    if where == "proposing":
        campaign._proposer.look_ahead = lambda: None  # type: ignore[method-assign]
    outcome = campaign.run()
    assert outcome.reason == "interrupted"
    assert ended == (where == "choosing"), "a choice is written whole, but no other follows it"
    assert all(trial.state.name != "RUNNING" for trial in campaign._store.study.get_trials())
    again = fake_campaign(tmp_path, trials=4, sampler=sampler).run()
    (tmp_path / "whole").mkdir()
    assert told(again.records) == told(fake_campaign(tmp_path / "whole", trials=4, sampler=sampler).run().records)


def test_an_interruptible_block_may_lie_in_another() -> None:
    with Interrupts() as interrupts, pytest.raises(Interrupted), interrupts.interruptible():  # noqa: PT012
        with interrupts.interruptible():
            pass
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def test_a_small_space_is_looked_at_before_anyone_waits_for_the_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = fake_campaign(tmp_path, sampler="ehvi", trials=3, space=fake_space(SMALL))
    looked: list[bool] = []
    foresee, taken = campaign._proposer.known_costs, campaign._store.lock.held
    in_turn = False

    @contextmanager
    def marked(*, durable: bool = False) -> Iterator[float]:
        nonlocal in_turn
        with taken(durable=durable) as now:
            in_turn = True
            yield now
            in_turn = False

    monkeypatch.setattr(campaign._store.lock, "held", marked)
    monkeypatch.setattr(
        campaign._proposer, "known_costs", lambda assignment: (looked.append(in_turn), foresee(assignment))[1]
    )
    campaign.run()
    assert looked == [False] * 8


def test_parameters_that_take_long_are_drawn_outside_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = fake_campaign(tmp_path, sampler="nsga2", trials=1)
    drawn: list[str] = []
    relative, together = Keyed.sample_relative, campaign._store.batch
    monkeypatch.setattr(campaign._store, "batch", lambda: (drawn.append("together"), together())[1])
    monkeypatch.setattr(Keyed, "sample_relative", lambda self, *of: (drawn.append("relative"), relative(self, *of))[1])
    campaign.run()
    assert drawn == ["relative", "together"]
