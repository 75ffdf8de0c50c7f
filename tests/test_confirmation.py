"""The front is confirmed before it is declared: who was lucky falls, who was not enters, and nothing is done twice."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from math import log10
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from fake_study import SPACE, FakeTraining, fake_accuracy, fake_campaign, fake_latency, fake_space, fake_timing
from rich.console import Console
from test_campaign import Stop, told

from archdsl.cli.main import run
from archdsl.compiler import cost, identity
from archdsl.errors import ArchError
from archdsl.evaluators.train_processes import Trainers
from archdsl.events import Event
from archdsl.failures import failed
from archdsl.language import Spec, load, loads_space
from archdsl.language.space.objectives import Confirm
from archdsl.latency import Timing
from archdsl.report.front_confirmation import ConfirmationReport
from archdsl.report.front_csv import front_csv
from archdsl.report.front_page import front_page
from archdsl.report.front_rows import front_rows
from archdsl.report.front_specs import front_spec
from archdsl.report.front_table import front_table
from archdsl.report.live import Progress
from archdsl.runs.search import search
from archdsl.runtimes.target import Target
from archdsl.study.campaign import Campaign, CampaignResult
from archdsl.study.candidate import Assessor
from archdsl.study.events import Confirmed, Confirming, NotConfirmed
from archdsl.study.front.confirmation import MOST_INTERLEAVED
from archdsl.study.front.pareto import front_of, moved
from archdsl.study.front.reevaluation import Reevaluation, reevaluation_for
from archdsl.study.latency_evaluator import MOST_ATTEMPTS, LatencyEvaluator
from archdsl.study.objectives import OBJECTIVES, Objective, chosen
from archdsl.study.record import Record
from archdsl.training import Accuracy, parse_recipe

BOTH = (OBJECTIVES["accuracy"], OBJECTIVES["latency"])
TRIALS = 14


class Retime:
    """Times networks again, as slow as `worth` says. seen: the groups that took turns"""

    def __init__(self, worth: Callable[[Spec], Any] = fake_latency):
        self.worth, self.seen = worth, []  # type: Callable[[Spec], Any], list[list[str]]

    def __call__(self, specs: Sequence[Spec]) -> list[Timing | ArchError]:
        self.seen.append([identity(spec) for spec in specs])
        return [self.worth(spec) for spec in specs]


class Trained(FakeTraining):
    """The larger the network, the more accurate, mostly: so that fronts are long."""

    def __call__(self, spec: Spec, *, seed: int) -> Accuracy:
        super().__call__(spec, seed=seed)
        return fake_accuracy(0.2 + 0.2 * log10(cost(spec).macs / 1e5) + 0.2 * random.Random(identity(spec)).random())


class Retrain(Trained):
    """Trains with eight more seeds. worth: hash -> accuracy over those; others are worth what the search found"""

    def __init__(self, worth: dict[str, float] | None = None, hook: Callable[[Spec], object] = lambda spec: None):
        super().__init__(hook)
        self.worth = worth or {}

    def __call__(self, spec: Spec, *, seed: int = 2) -> Accuracy:
        found = super().__call__(spec, seed=seed)
        mean = self.worth.get(identity(spec), found.mean)
        return fake_accuracy(mean, values=(mean,) * 8, seeds=tuple(range(seed, seed + 8)))


def again(retime: Retime | None = None, retrain: Retrain | None = None) -> Reevaluation:
    return Reevaluation({"": retime} if retime else {}, retrain, 8 if retrain else 0)


def members(records: Sequence[Record], objectives: Sequence[Objective] = BOTH) -> list[Record]:
    return [member.record for member in front_of(records, objectives).members]


def hashes(records: Sequence[Record]) -> list[str]:
    return [record.hash or "" for record in records]


@pytest.fixture
def searched(tmp_path: Path) -> CampaignResult:
    """A search without a confirmation."""
    return confirmed(tmp_path / "searched", None)


def confirmed(folder: Path, again: Reevaluation | None, **more: Any) -> CampaignResult:
    how: dict[str, Any] = {"training": Trained(), "trials": TRIALS, "sampler": "random", "reevaluation": again, **more}
    return fake_campaign(folder, **how).run()


def shadowing(records: Sequence[Record]) -> tuple[Record, list[Record]]:
    """A member of the front without which another would stand there, and the front without it."""
    front = members(records)
    for lucky in front[:-1]:
        rest = members([record for record in records if record.hash != lucky.hash])
        if not {*hashes(rest)} <= {*hashes(front)}:
            return lucky, rest
    raise AssertionError("nobody is in a shadow")


# --- what it does to a front ----------------------------------------------------------------------------------------


def test_the_lucky_fall_off_and_the_runner_up_enters(tmp_path: Path, searched: CampaignResult) -> None:
    lucky, rest = shadowing(searched.records)
    expected = {*hashes(rest)}
    retrain = Retrain({lucky.hash or "": 0.0})
    outcome = confirmed(tmp_path, again(Retime(), retrain))
    front = members(outcome.known)
    assert {*hashes(front)} == expected
    assert all(record.is_confirmed for record in front)
    fallen = next(record for record in outcome.known if record.hash == lucky.hash)
    assert fallen.before is not None
    assert fallen.before.values == lucky.values
    assert fallen.values is not None
    assert lucky.values is not None
    assert fallen.values[0] == pytest.approx(0.2 * lucky.values[0])
    assert len(retrain.seen) == len({*retrain.seen}) == len(expected) + 1


def test_an_accuracy_is_then_the_mean_over_all_seeds_with_their_spread(
    tmp_path: Path, searched: CampaignResult
) -> None:
    best = members(searched.records)[0]
    assert best.accuracy is not None
    outcome = confirmed(tmp_path, again(None, Retrain({best.hash or "": best.accuracy.mean - 0.1})))
    now = next(record.accuracy for record in outcome.known if record.hash == best.hash)
    assert now is not None
    assert now.seeds == (0, 1, *range(2, 10))
    assert now.mean == pytest.approx(best.accuracy.mean - 0.08)
    assert now.sd == pytest.approx(0.0422, abs=1e-4)


def test_a_latency_is_then_the_second_one_and_all_members_take_turns_for_it(
    tmp_path: Path, searched: CampaignResult
) -> None:
    retime = Retime(lambda spec: fake_timing(2 * cost(spec).macs / 1e6))
    outcome = confirmed(tmp_path, again(retime))
    assert retime.seen[0] == hashes(members(searched.records))
    for now, then in zip(outcome.known, searched.records, strict=True):
        if now.hash in retime.seen[0]:
            assert now.timing is not None
            assert now.values == (then.values[0], 2 * then.values[1]) if then.values else None
            assert now.timing.median_ms == now.values[1] if now.values else None
    assert {*hashes(members(outcome.known))} <= {hash for group in retime.seen for hash in group}


def test_a_front_flatters_itself_less_when_it_is_confirmed(tmp_path: Path) -> None:
    def truth(spec: Spec) -> float:
        return 0.5 + 0.02 * (hash_number(spec) % 5)

    def hash_number(spec: Spec) -> int:
        return int(identity(spec)[:8], 16)

    def with_luck(spec: Spec, seeds: Sequence[int]) -> Accuracy:
        values = [truth(spec) + random.Random(f"{identity(spec)} {seed}").gauss(0, 0.1) for seed in seeds]
        return fake_accuracy(fmean(values), values=tuple(values), seeds=tuple(seeds))

    class Noisy(Retrain):
        def __call__(self, spec: Spec, *, seed: int = 0) -> Accuracy:
            return with_luck(spec, self.seeds)

    trainings = Noisy(), Noisy()
    trainings[0].seeds, trainings[1].seeds = range(1), range(1, 9)  # type: ignore[attr-defined]
    outcome = confirmed(tmp_path, again(None, trainings[1]), training=trainings[0], trials=40)
    space = fake_space()

    def flattery(records: Sequence[Record]) -> float:
        return fmean(r.values[0] - truth(space.spec(r.assignment)) for r in members(records) if r.values)

    assert flattery(outcome.records) > 0.08
    assert abs(flattery(outcome.known)) < 0.5 * flattery(outcome.records)


def test_who_breaks_a_bound_when_timed_again_falls_off(tmp_path: Path) -> None:
    space = fake_space(SPACE + "constraints: {latency: {max: 2 ms}}\n")
    slow = lambda spec: fake_timing(10.0)  # noqa: E731
    outcome = confirmed(tmp_path, again(Retime(slow)), space=space)
    assert members(outcome.records) != []
    assert members(outcome.known) == []
    fallen = next(record for record in outcome.known if record.is_confirmed)
    assert (fallen.state, fallen.rule) == ("infeasible", "infeasible")
    assert "latency" in (fallen.reason or "")


def test_large_fronts_take_turns_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_INTERLEAVED > 3
    monkeypatch.setattr("archdsl.study.front.confirmation.MOST_INTERLEAVED", 2)
    retime = Retime()
    outcome = confirmed(tmp_path, again(retime))
    assert [*map(len, retime.seen)][:2] == [2, 2]
    assert [*chain(*retime.seen)] == hashes(members(outcome.records))


def test_trainings_that_were_stopped_are_neither_on_the_front_nor_confirmed(tmp_path: Path) -> None:
    best = Record(0, "complete", {}, hash="a", values=(0.5, 1.0))
    stopped = Record(1, "stopped", {}, hash="b", values=(0.9, 0.5), accuracy=fake_accuracy(0.9))
    assert hashes(members([best, stopped])) == ["a"]


# --- what it leaves alone -------------------------------------------------------------------------------------------


def test_trials_stay_as_they_were_and_a_longer_study_proposes_the_same(tmp_path: Path) -> None:
    retime = Retime(lambda spec: fake_timing(3.0 + cost(spec).macs / 1e6))
    confirmed(tmp_path, again(retime), trials=8, sampler="tpe")
    before = {hash for group in retime.seen for hash in group}
    retime.seen.clear()
    outcome = confirmed(tmp_path, again(retime), sampler="tpe")
    assert told(outcome.records) == told(confirmed(tmp_path / "whole", None, sampler="tpe").records)
    after = {hash for group in retime.seen for hash in group}
    assert not before & after  # only those that are new on the front
    assert {*hashes(members(outcome.known))} <= before | after


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_confirmed_study_has_nothing_left_to_do(tmp_path: Path, kind: str) -> None:
    storage = f"sqlite:///{tmp_path}/study.db" if kind == "sqlite" else None
    outcome = confirmed(tmp_path, again(Retime(), Retrain()), storage=storage)
    retime, retrain = Retime(), Retrain()
    assert told(confirmed(tmp_path, again(retime, retrain), storage=storage).known) == told(outcome.known)
    assert retime.seen == retrain.seen == []


def test_more_seeds_can_be_asked_for_later(tmp_path: Path) -> None:
    confirmed(tmp_path, again(Retime()))
    retime, retrain = Retime(), Retrain()
    outcome = confirmed(tmp_path, again(retime, retrain))
    assert retime.seen == []
    assert {*retrain.seen} == {*hashes(members(outcome.known))}


def test_without_a_confirmation_what_is_confirmed_stays_so(tmp_path: Path) -> None:
    outcome = confirmed(tmp_path, again(Retime(lambda spec: fake_timing(3.0 + cost(spec).macs / 1e6))))
    assert confirmed(tmp_path, None).known == outcome.known


def test_a_search_without_anything_noisy_confirms_nothing(tmp_path: Path) -> None:
    latency = LatencyEvaluator(Target("null"))
    assessor = Assessor(fake_space(), BOTH, latency=latency, accuracy=FakeTraining())
    assert not reevaluation_for(Confirm(seeds=3), assessor)
    measured = Assessor(fake_space(), BOTH, latency=LatencyEvaluator(Target("onnxruntime")), accuracy=FakeTraining())
    assert list(reevaluation_for(Confirm(), measured).retime) == [""]
    assert not reevaluation_for(Confirm(timings=False), measured)
    outcome = confirmed(tmp_path, reevaluation_for(Confirm(), assessor))
    assert outcome.known == outcome.records


def test_further_seeds_follow_those_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(Trainers, "advance", lambda self, spec, *, seed, to_epoch: asked.append((seed, self.num_seeds)))
    trainers = Trainers("synthetic", parse_recipe("quick"), results=tmp_path / "results", num_seeds=2)
    assessor = Assessor(fake_space(), BOTH, latency=fake_latency, accuracy=trainers, seed=5)
    found = reevaluation_for(Confirm(seeds=3), assessor)
    assert str(found) == "trained with 3 more seeds"
    assert found.retrain is not None
    found.retrain(load("micro_swin"))
    assert asked == [(7, 3)]
    assert trainers.num_seeds == 2


# --- who does it, and when ------------------------------------------------------------------------------------------


def test_only_who_leads_a_search_confirms(tmp_path: Path) -> None:
    retime = Retime()
    leader = fake_campaign(tmp_path, trials=4, reevaluation=again(retime))
    leader.hand_over()
    fake_campaign(tmp_path, trials=4, joins=True, reevaluation=again(retime)).run()
    assert retime.seen == []

    class Ended:
        """Workers that have done all and ended."""

        def start(self) -> None: ...
        def stop(self) -> None: ...
        def poll(self, progress: int) -> bool:
            return False

    outcome = leader.lead(Ended())
    assert outcome.reason == "trials"
    assert all(record.is_confirmed for record in members(outcome.known))
    assert retime.seen != []


def test_a_time_limit_ends_trainings_but_not_timings(tmp_path: Path) -> None:
    slow = lambda spec: fake_accuracy(0.5, seconds=1000.0)  # noqa: E731

    class Slow(FakeTraining):
        def __call__(self, spec: Spec, *, seed: int) -> Accuracy:
            return slow(spec)

    retrain, retime = Retrain(), Retime()
    outcome = confirmed(tmp_path, again(retime, retrain), training=Slow(), trials=3, time_limit_s=500.0)
    assert retrain.seen == []
    assert sum(map(len, retime.seen)) == len(members(outcome.records)) == len(outcome.failed)
    assert not any(record.is_confirmed for record in outcome.known)
    assert "time limit" in next(iter(outcome.failed.values()))


@pytest.mark.parametrize(("limit_s", "trained"), [(3000.0, False), (30_000.0, True)])
def test_a_training_is_begun_when_all_its_seeds_end_in_time(tmp_path: Path, limit_s: float, trained: bool) -> None:
    """One seed took 1000 s in the search; eight more take 8000."""

    class Slow(Trained):
        def __call__(self, spec: Spec, *, seed: int) -> Accuracy:
            return replace(super().__call__(spec, seed=seed), seconds=1000.0)

    retrain = Retrain()
    outcome = confirmed(tmp_path, again(Retime(), retrain), training=Slow(), trials=3, time_limit_s=limit_s)
    assert bool(retrain.seen) == trained == (not outcome.failed)


# --- stopped in the middle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, 6))
def test_a_confirmation_that_was_cut_short_goes_on_there(tmp_path: Path, at: int, searched: CampaignResult) -> None:
    lucky, _ = shadowing(searched.records)
    worth = {record.hash or "": 0.9 * (record.values or (0.0,))[0] for record in searched.records}
    worth[lucky.hash or ""] = 0.0
    whole_again = Retrain(worth)
    whole = confirmed(tmp_path / "whole", again(Retime(), whole_again))
    assert len(whole_again.seen) >= 5

    def hook(spec: Spec) -> None:
        if len(cut.seen) == at:
            raise Stop

    cut, timed = Retrain(worth, hook), Retime()
    with pytest.raises(Stop):
        confirmed(tmp_path / "cut", again(timed, cut))
    rest, timed_again = Retrain(worth), Retime()
    outcome = confirmed(tmp_path / "cut", again(timed_again, rest))
    assert told(outcome.known) == told(whole.known)
    assert cut.seen[:-1] + rest.seen == whole_again.seen
    seen = [*chain(*timed.seen, *timed_again.seen)]
    assert len(seen) == len({*seen})


def test_an_interrupt_ends_a_confirmation_cleanly(tmp_path: Path) -> None:
    def hook(spec: Spec) -> None:
        if len(retrain.seen) == 2:
            signal.raise_signal(signal.SIGINT)

    retrain = Retrain({}, hook)
    outcome = confirmed(tmp_path, again(Retime(), retrain))
    assert outcome.reason == "interrupted"
    assert sum(record.is_confirmed for record in members(outcome.known)) == 1
    assert threading.active_count() < 10
    rest = Retrain()
    outcome = confirmed(tmp_path, again(Retime(), rest))
    assert outcome.reason == "trials"
    assert retrain.seen[0] not in rest.seen
    assert all(record.is_confirmed for record in members(outcome.known))


KILLED = """
import os, signal, sys
from test_confirmation import Retime, Retrain, again, confirmed

def hook(spec):
    print(retrain.seen[-1], flush=True)
    if len(retrain.seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

retrain = Retrain({}, hook)
confirmed(sys.argv[1], again(Retime(), retrain))
"""


def test_kill_9_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    retime, retrain = Retime(), Retrain()
    outcome = confirmed(tmp_path, again(retime, retrain))
    assert retime.seen == []
    assert not {*killed.stdout.split()[:2]} & {*retrain.seen}
    assert killed.stdout.split()[2] in retrain.seen
    assert all(record.is_confirmed for record in members(outcome.known))


# --- when it fails --------------------------------------------------------------------------------------------------


def test_who_cannot_be_timed_again_stays_unconfirmed_and_that_is_said(tmp_path: Path, searched: CampaignResult) -> None:
    best = members(searched.records)[0]
    events: list[Event] = []

    def worth(spec: Spec) -> Timing | ArchError:
        return failed("crash", "the worker died") if identity(spec) == best.hash else fake_latency(spec)

    retrain = Retrain()
    outcome = confirmed(tmp_path, again(Retime(worth), retrain), on_event=events.append)
    assert outcome.reason == "trials"
    assert outcome.failed == {best.hash: "the worker died"}
    now = next(record for record in outcome.known if record.hash == best.hash)
    assert (now.before, now.values) == (None, best.values)
    assert best.hash not in retrain.seen
    assert NotConfirmed(best.name or "", "the worker died") in events
    change = ConfirmationReport.of(front_of(outcome.known, BOTH), outcome, "re-measured, interleaved")
    assert (change.num_members, change.num_confirmed) == (len(members(outcome.known)), len(members(outcome.known)) - 1)
    assert f"{best.name} not confirmed: the worker died" in str(change)
    healthy = Retime()
    assert all(r.is_confirmed for r in members(confirmed(tmp_path, again(healthy, Retrain())).known))
    assert healthy.seen == [[best.hash]]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("the device is gone")])
def test_a_timing_that_fails_altogether_ends_no_search(tmp_path: Path, error: Exception) -> None:
    def worth(spec: Spec) -> Any:
        raise error

    outcome = confirmed(tmp_path, again(Retime(worth)))
    assert outcome.reason == "trials"
    assert {*outcome.failed} == {*hashes(members(outcome.records))}
    assert type(error).__name__ in next(iter(outcome.failed.values()))


def test_a_memory_that_is_not_told_again_leaves_the_member_unconfirmed(tmp_path: Path) -> None:
    objectives = chosen(["peak_memory"], ["accuracy", "peak_memory"])
    known = lambda spec: fake_timing(1.0, peak_memory_bytes=cost(spec).macs)  # noqa: E731
    assessor = Assessor(fake_space(), objectives, latency=known, accuracy=FakeTraining())
    assert assessor.objectives[1].name == "peak_memory"
    retime = Retime(lambda spec: fake_timing(1.0))
    outcome = fake_campaign(
        tmp_path, assessor=assessor, objectives=objectives, trials=4, reevaluation=again(retime)
    ).run()
    assert sum(map(len, retime.seen)) == len(outcome.failed) > 0
    assert "memory" in next(iter(outcome.failed.values()))
    assert outcome.known == outcome.records


# --- what is timed again --------------------------------------------------------------------------------------------


class Standing:
    def __init__(self, timing: Timing | None, error: ArchError | None = None):
        self.timing, self.error = timing, error


def test_disturbed_networks_take_turns_again_and_the_last_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[list[str]] = []

    def side_by_side(entrants: Sequence[Any], *rest: Any, **more: Any) -> list[Standing]:
        groups.append([entrant.name for entrant in entrants])
        disturbed = fake_timing(float(len(groups)), contended=True)
        calm = {"micro_swin": Standing(fake_timing(9.0)), "micro_swin_free": Standing(None, failed("crash", "died"))}
        return [calm.get(entrant.name, Standing(disturbed)) for entrant in entrants]

    monkeypatch.setattr("archdsl.study.latency_evaluator.side_by_side", side_by_side)
    names = ["micro_swin", "micro_swin_free", "micro_swin_isolated"]
    calm, broken, disturbed = LatencyEvaluator(Target("onnxruntime")).measure_interleaved(
        [load(name) for name in names]
    )
    assert groups == [names, *[names[2:]] * (MOST_ATTEMPTS - 1)]
    assert isinstance(calm, Timing)
    assert calm.median_ms == 9.0
    assert isinstance(broken, ArchError)
    assert isinstance(disturbed, Timing)
    assert disturbed.median_ms == MOST_ATTEMPTS  # the last, which is the slowest


def test_networks_are_timed_in_turns_on_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path))
    latency = LatencyEvaluator(Target("onnxruntime"), budget_s=0.1)
    found = latency.measure_interleaved([load("micro_swin"), load("micro_swin_free")])
    assert all(isinstance(timing, Timing) and timing.median_ms > 0 for timing in found)


# --- how it is told -------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(tmp_path: Path, searched: CampaignResult) -> CampaignResult:
    """A search one of whose networks was lucky, and another is a little slower than the search had found."""
    lucky, rest = shadowing(searched.records)

    def worth(spec: Spec) -> Timing:
        return fake_timing(fake_latency(spec).median_ms * (1.001 if identity(spec) == rest[-1].hash else 1.0))

    return confirmed(tmp_path, again(Retime(worth), Retrain({lucky.hash or "": 0.0})))


def test_the_csv_and_the_json_say_who_is_confirmed_and_what_the_search_had_found(shown: CampaignResult) -> None:
    rows = front_rows(front_of(shown.known, BOTH), fake_space())
    cells = list(csv.DictReader(io.StringIO(front_csv(rows))))
    then = {record.number: record for record in shown.records}
    assert len(cells) == len(rows) > 1
    for cell, row in zip(cells, rows, strict=True):
        before = then[row.record.number]
        assert before.accuracy is not None
        assert before.timing is not None
        assert cell["confirmed"] == "True"
        assert float(cell["accuracy_in_search"]) == before.accuracy.mean
        assert float(cell["latency_in_search_ms"]) == before.timing.median_ms
        assert row.as_json()["confirmed"] is True
        assert row.as_json()["in_search"] == {"accuracy": before.accuracy.mean, "latency": before.timing.median_ms}
        assert front_spec(row, "fake").splitlines()[3].startswith("# confirmed")
    json.dumps([row.record.as_json() for row in rows])


def test_without_a_confirmation_the_csv_and_the_json_say_so(searched: CampaignResult) -> None:
    rows = front_rows(front_of(searched.known, BOTH), fake_space())
    for cell, row in zip(csv.DictReader(io.StringIO(front_csv(rows))), rows, strict=True):
        assert (cell["confirmed"], cell["accuracy_in_search"], cell["latency_in_search_ms"]) == ("False", "", "")
        assert (row.as_json()["confirmed"], row.as_json()["in_search"]) == (False, None)
    assert "confirmed" not in text_of(rows)


def text_of(rows: Any) -> str:
    console = Console(width=250, file=io.StringIO())
    console.print(front_table(rows, "front", BOTH))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_and_the_page_show_the_search_s_value_where_it_differs_beyond_noise(shown: CampaignResult) -> None:
    front = front_of(shown.known, BOTH)
    rows = front_rows(front, fake_space())
    differs = [row for row in rows if moved(row.record, BOTH)]
    assert 0 < len(differs) < len(rows)
    page = front_page("t", {}, front, rows, shown.records, lambda record: "")
    for row in rows:
        line = next(line for line in text_of(rows).splitlines() if line.strip().startswith(row.name))
        assert ("yes; in the search" in line) == (row in differs)
    assert page.count("yes; in the search") == len(differs)
    assert page.count("<td>yes") == len(rows)


def test_the_last_line_names_who_fell_off_and_why_and_who_entered(shown: CampaignResult) -> None:
    told = ConfirmationReport.of(front_of(shown.known, BOTH), shown, "re-measured, interleaved")
    first, _ = shadowing(shown.records)
    count = len(members(shown.known))
    assert str(told).startswith(f"{count} of {count} confirmed (re-measured, interleaved); ")
    assert f"{first.name} (accuracy " in str(told)
    assert "entered: " in str(told)
    data = json.loads(json.dumps(told.as_json()))
    assert (data["members"], data["confirmed"], data["failed"]) == (count, count, [])
    fell = next(one for one in data["fell_off"] if one["name"] == first.name)
    assert fell["in_search"]["accuracy"] == pytest.approx(5 * fell["confirmed"]["accuracy"])
    assert {record.name for record in told.entered} == {*data["entered"]}


def test_progress_says_what_is_confirmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], searched: CampaignResult
) -> None:
    best = members(searched.records)[0]
    count = len(members(searched.records))
    with Progress(BOTH, TRIALS) as progress:
        confirmed(tmp_path, again(Retime(), Retrain({best.hash or "": 0.0})), on_event=progress)
    said = capsys.readouterr().err
    assert f"confirming {count} networks of the front: taking its latency, interleaved" in said
    assert f"confirming {best.name}: training" in said
    assert f"confirmed {best.name}: accuracy " in said


def test_events_come_after_what_they_tell_is_stored(tmp_path: Path) -> None:
    campaign: Campaign = fake_campaign(tmp_path, trials=5, reevaluation=again(Retime(), Retrain()))
    seen: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Confirmed):
            kept = campaign._store.study.user_attrs[f"archdsl:confirmed:{event.record.hash}"]
            assert kept["complete"] is True
            seen.append(event.record.hash or "")
        elif isinstance(event, Confirming):
            assert event.step in ("latency", "training")

    campaign.on_event = listen
    outcome = campaign.run()
    assert seen == hashes(members(outcome.records))
    assert campaign._store.study.user_attrs["archdsl:confirming"] is None


# --- on the command line --------------------------------------------------------------------------------------------

MEASURED = """
name: measured
base: micro_swin
choices: {stages.*.depth: [1, 2]}
objectives: {latency: {runtime: onnxruntime}, params: {}}
search: {trials: 2, sampler: random, start: [micro_swin]}
"""


def test_a_search_confirms_its_front_unless_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "measured.yaml"
    path.write_text(MEASURED)
    command = ["search", str(path), "--out", str(tmp_path / "out"), "--json"]
    assert run([*command, "--no-confirm"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["confirmation"] is None
    assert not any(row["confirmed"] for row in first["front"])
    assert run(command) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["trials"] == first["trials"]
    assert second["confirmation"]["confirmed"] == second["confirmation"]["members"] == len(second["front"])
    assert all(row["confirmed"] and row["in_search"]["latency"] > 0 for row in second["front"])


def test_a_search_on_null_has_nothing_to_confirm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "measured.yaml"
    path.write_text(MEASURED.replace("onnxruntime", '"null"'))
    assert run(["search", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confirmation"] is None
    assert not any(row["confirmed"] for row in found["front"])


@pytest.mark.parametrize(
    ("text", "said"), [("{seeds: -1}", "seeds"), ("{timing: true}", "timings"), ("yes", "confirm")]
)
def test_a_confirmation_that_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = tmp_path / "measured.yaml"
    path.write_text(MEASURED.replace("trials: 2", f"trials: 2, confirm: {text}"))
    assert run(["search", str(path), "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err


def test_what_was_cut_short_counts_when_nothing_more_is_asked_for(tmp_path: Path) -> None:
    retime = Retime()

    def fails(spec: Spec) -> Accuracy:
        raise failed("exception", "no training today")

    first = fake_campaign(
        tmp_path, training=Trained(), reevaluation=Reevaluation({"": retime}, fails, 2), trials=6
    ).run()
    assert first.failed and not any(record.is_confirmed for record in first.known)
    num_timed = len(retime.seen)
    second = fake_campaign(tmp_path, training=Trained(), reevaluation=Reevaluation({"": retime}), trials=6).run()
    assert all(member.record.is_confirmed for member in front_of(second.known, BOTH).members)
    assert len(retime.seen) == num_timed and not second.failed


def test_the_same_campaign_tries_again_what_had_failed(tmp_path: Path) -> None:
    def flaky(specs: Sequence[Spec]) -> list[Timing | ArchError]:
        calls.append(len(specs))
        if len(calls) == 1:
            raise failed("exception", "busy")
        return [fake_latency(spec) for spec in specs]

    calls: list[int] = []
    campaign = fake_campaign(tmp_path, training=Trained(), reevaluation=Reevaluation({"": flaky}), trials=6)
    assert campaign.run().failed
    again = campaign.run()
    assert not again.failed and all(member.record.is_confirmed for member in front_of(again.known, BOTH).members)


def test_where_nothing_was_confirmed_no_front_says_so(tmp_path: Path) -> None:
    space = """
name: fake
base: micro_swin
choices: {stages.0.window: [2, 4]}
objectives: {latency: {runtime: torch}, params: {}}
search: {trials: 2}
"""
    result = search(loads_space(space), out=tmp_path / "run", workers=0)
    assert result.reason == "handed-over" and result.confirmation is None and result.as_json()["confirmation"] is None
