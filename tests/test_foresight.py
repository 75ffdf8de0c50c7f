"""Estimates that a study knows before it measures them: what is learnt, where it is kept, what proposals make of it."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from itertools import compress
from math import exp
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_study import FakeTraining, fake_accuracy, fake_campaign, fake_space, fake_timing, long_ago

from archdsl.cli.main import run
from archdsl.compiler import cost, identity
from archdsl.errors import ArchError
from archdsl.events import Event, Note, Step
from archdsl.failures import failed
from archdsl.language import Space, Spec, load_space
from archdsl.language.space.objectives import DurationBounds, RateBounds
from archdsl.latency import Timing, close_workers
from archdsl.latency.predictor import calibration
from archdsl.latency.predictor.calibration import Subject, SubjectTimings, calibrate, choose_segments
from archdsl.latency.predictor.networks import CandidateNetwork, networks_of
from archdsl.latency.predictor.predictor import Calibrated, Predictor
from archdsl.passes.drop_train_only import drop_train_only
from archdsl.passes.segments import work_of
from archdsl.runs.search import search
from archdsl.runs.search_parts import SearchParts
from archdsl.runtimes.adapters.null import analytic_ms
from archdsl.runtimes.target import Target
from archdsl.study.campaign import Campaign
from archdsl.study.candidate import Assessor, KnownCosts
from archdsl.study.config import StudyConfig
from archdsl.study.interrupts import Interrupted, Interrupts
from archdsl.study.latency_evaluator import LatencyEvaluator
from archdsl.study.objectives import chosen
from archdsl.study.predicted_latencies import FEWEST_TRIALS, SCHEMA, Effort, PredictedLatencies
from archdsl.study.proposals.proposer import Proposer
from archdsl.study.record import Record
from archdsl.study.storage.opening import attributes_of, open_storage
from archdsl.study.storage.process_identity import this_process
from archdsl.study.storage.shared_results import SharedResults
from archdsl.study.storage.store import StudyStore, study_lock

NULL = Target.parse("null")
HERE = Target.parse("onnxruntime")
EFFORT = Effort(14, 3)

SMALL = """
name: fake
base: micro_swin
choices:
  stages.0.window: [2, 4, 8]
  stages.1.window: [2, 4]
  stages.*.shift: {same: [true, false]}
  stages.0.depth: [1, 2]
objectives: {accuracy: {train: {data: synthetic}}, latency: {runtime: onnxruntime}}
search: {start: [micro_swin, micro_swin_free]}
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    yield
    close_workers()


@pytest.fixture(scope="module")
def networks() -> list[CandidateNetwork]:
    return networks_of(fake_space())


def computed_ms(subject: Subject) -> float:
    costs = work_of(drop_train_only(subject.graph))
    return analytic_ms(costs.macs, costs.bytes_read + costs.bytes_written, 1, 1)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Segments and networks take what `null` says; the list holds the names of all that were timed."""
    names: list[str] = []

    def take(subjects: list[Subject], target: Target, **how: Any) -> SubjectTimings:
        assert how["attempts"] == 1, "on a busy machine learning would take three times as long"
        names.extend(subject.name for subject in subjects)
        times_ms = [0.05 if subject.name == "the call" else computed_ms(subject) for subject in subjects]
        return SubjectTimings(tuple(fake_timing(ms) for ms in times_ms), len(subjects))

    monkeypatch.setattr(calibration, "take", take)
    return names


def fake_latency(spec: Spec) -> Timing:
    """What `null` says, and up to 2 % beside it."""
    ms = computed_ms(Subject.network(spec, HERE))
    return fake_timing(ms * random.Random(identity(spec)).uniform(0.98, 1.02))


class Fake:
    """One process at a study whose latencies are foreseen; `run` is a search, `events` what it told."""

    def __init__(self, folder: Path, *, trials: int = 10, storage: str | None = None, **more: Any):
        self.events: list[Event] = []
        self.space = fake_space(SMALL)
        self.training = more.pop("training", None) or FakeTraining()
        self.predicted = PredictedLatencies(
            self.space, more.pop("targets", {"": HERE}), effort=more.pop("effort", EFFORT)
        )
        self.assessor = Assessor(
            self.space,
            chosen(["latency"], ["accuracy", "latency"]),
            constraints=more.pop("constraints", None),
            latency=fake_latency,
            accuracy=self.training,
            predicted=self.predicted,
        )
        how = {"sampler": "ehvi", "space": self.space, "assessor": self.assessor, "on_event": self.events.append}
        self.campaign: Campaign = fake_campaign(folder, trials=trials, storage=storage, **how, **more)

    def run(self) -> list[tuple[str | None, Any]]:
        return [(record.hash, record.values) for record in self.campaign.run().records]

    @property
    def told(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]


def kept_in(folder: Path) -> dict[str, Any]:
    found = attributes_of(open_storage(folder / "study.journal"))["fake"]
    return {key: value for key, value in found.items() if key.startswith("foresight")}


# --- a predictor as plain data ---------------------------------------------------------------------------------------


def test_a_predictor_that_was_kept_predicts_the_same_to_the_last_digit(
    networks: list[CandidateNetwork], timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MOST_MOVES", 3)  # so that some of the networks it learns from hold priced ones
    pairs = [(network.spec, network.parts) for network in networks]
    made = calibrate(pairs, HERE, num_networks=4, most_segments=1000, attempts=1).predictor
    again = Predictor.from_json(json.loads(json.dumps(made.as_json())))
    assert any(key not in made.segments_ms for one in made.calibration for key in one.parts.counts)
    assert [again.predict(n.parts) for n in networks] == [made.predict(n.parts) for n in networks]
    assert again.left_out_error == made.left_out_error
    more = [Calibrated(networks[5].parts, 3.0)]
    assert (
        again.learning(more).predict(networks[9].parts).median_ms
        == made.learning(more).predict(networks[9].parts).median_ms
    )
    all_parts = [network.parts for network in networks]
    assert again.next_networks(all_parts, 3) == made.next_networks(all_parts, 3)


@pytest.mark.parametrize(
    "changed",
    [{"schema": 2}, {"call_ms": None}, {"networks": [{}]}, {"target": {"runtime": "tensorrrt"}}, {"sizes": 1}],
)
def test_what_is_no_predictor_is_refused(
    networks: list[CandidateNetwork], timed: list[str], changed: dict[str, Any]
) -> None:
    pairs = [(network.spec, network.parts) for network in networks[:6]]
    data = calibrate(pairs, HERE, num_networks=2, attempts=1).predictor.as_json()
    with pytest.raises(ValueError, match=r"schema|no predictor"):
        Predictor.from_json({**data, **changed})
    with pytest.raises(ValueError, match="no predictor: KeyError"):
        Predictor.from_json({})


def test_segments_are_chosen_so_that_many_networks_are_known_as_a_whole(networks: list[CandidateNetwork]) -> None:
    parts = [network.parts for network in networks]
    needed = [{key for key in one.counts if key not in one.moves} for one in parts]
    complete = []
    for most in (12, 16, 20):
        keys = {segment.key for segment in choose_segments(parts, most)}
        assert len(keys) == most
        complete.append(sum(one <= keys for one in needed))
    assert complete[0] >= len(parts) / 4 and complete[1] >= len(parts) / 2 and complete == sorted(complete)


# --- what is foreseen ------------------------------------------------------------------------------------------------


def test_a_computed_latency_is_foreseen_exactly(networks: list[CandidateNetwork]) -> None:
    target = Target.parse({"runtime": "null", "batch": 4, "threads": 2})
    foresight, measure = PredictedLatencies(fake_space(), {"": NULL, "other": target}), LatencyEvaluator(target)
    for network in networks[:40:13]:
        seen, timing = foresight.of(network.spec, network.hash), measure(network.spec)
        assert seen.values["latency@other"] == timing.median_ms
        assert seen.values["throughput@other"] == timing.images_per_second
        assert seen.values["latency"] == LatencyEvaluator(NULL)(network.spec).median_ms
        assert not seen.intervals


def test_a_network_is_looked_at_once(networks: list[CandidateNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    foresight = PredictedLatencies(fake_space(), {"": NULL})
    first = foresight.of(networks[0].spec, "a hash")
    monkeypatch.setattr("archdsl.study.predicted_latencies._computed_ms", None)
    assert foresight.of(networks[0].spec, "a hash") is first


def test_the_effort_follows_the_trials() -> None:
    assert Effort.for_trials(FEWEST_TRIALS - 1) is None
    assert Effort.for_trials(16) == Effort(32, 3)
    assert Effort.for_trials(100_000) == Effort(calibration.MOST_SEGMENTS, calibration.NETWORKS)


def test_latencies_are_learnt_once_and_foreseen_near_what_is_measured(tmp_path: Path, timed: list[str]) -> None:
    one, begun = Fake(tmp_path), time.monotonic()
    one.run()
    assert len(timed) == EFFORT.segments + EFFORT.networks
    assert [event.text for event in one.events if isinstance(event, Step)] == [
        "learning latencies on onnxruntime: 14 segments, 3 networks"
    ]
    assert "latency predicted: of " in one.told[0] and "from 14 segments and 3 networks on onnxruntime" in one.told[0]
    errors, inside = [], []
    for record in one.campaign.records():
        seen = one.assessor.known_costs(record.assignment)
        if "latency" in seen.values and record.values is not None:
            low, high = seen.intervals["latency"]
            assert seen.intervals["throughput"] == (pytest.approx(1000 / high), pytest.approx(1000 / low))
            errors.append(abs(seen.values["latency"] / record.values[1] - 1))
            inside.append(low <= record.values[1] <= high)
    assert len(errors) >= 4 and statistics.mean(errors) < 0.05 and statistics.mean(inside) > 0.5
    said = kept_in(tmp_path)["foresight"]["targets"][""]
    assert 0 <= said["seconds"] <= time.monotonic() - begun
    assert said["foreseen"] < said["looked_at"] == len(networks_of(one.space))


def test_a_resumed_study_proposes_what_the_uninterrupted_one_does_and_learns_nothing_again(
    tmp_path: Path, timed: list[str]
) -> None:
    whole = Fake(tmp_path / "whole").run()
    num_timed = len(timed)

    def cut(spec: Spec) -> None:
        if len(training.seen) == 6:
            os.kill(os.getpid(), signal.SIGINT)

    training = FakeTraining(cut)
    begun = Fake(tmp_path / "cut", training=training)
    assert begun.campaign.run().reason == "interrupted"
    again = Fake(tmp_path / "cut")
    assert again.run() == whole
    assert len(timed) == 2 * num_timed, "the resumed process timed nothing"
    assert again.told == begun.told


def test_workers_share_what_one_of_them_learnt(tmp_path: Path, timed: list[str]) -> None:
    workers = [Fake(tmp_path, joins=bool(i)) for i in range(3)]
    threads = [threading.Thread(target=worker.campaign.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(timed) == EFFORT.segments + EFFORT.networks
    assignment = [record.assignment for record in workers[0].campaign.records() if record.assignment]
    seen = [[worker.assessor.known_costs(one) for one in assignment] for worker in workers]
    assert seen[0] == seen[1] == seen[2] and any("latency" in one.values for one in seen[0])


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (failed("crash", "the worker died by signal 11"), "no, the worker died by signal 11"),
        (RuntimeError("a library's own"), "no, RuntimeError: a library's own"),
    ],
)
def test_a_search_goes_on_without_what_could_not_be_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    def take(*what: Any, **how: Any) -> SubjectTimings:
        raise error

    monkeypatch.setattr(calibration, "take", take)
    one = Fake(tmp_path, trials=5)
    assert one.campaign.run().reason == "trials"
    assert one.told == [f"latency predicted: {why}"]
    assert "latency" not in one.assessor.known_costs(one.campaign.records()[0].assignment).values
    monkeypatch.undo()
    again = Fake(tmp_path, trials=6)
    assert again.campaign.run().reason == "trials" and again.told == one.told, "it is not tried again"


def test_an_interrupt_while_learning_ends_the_search_and_the_next_one_learns_again(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = calibration.take

    def take(*what: Any, **how: Any) -> SubjectTimings:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return fine(*what, **how)

    monkeypatch.setattr(calibration, "take", take)
    outcome = Fake(tmp_path).campaign.run()
    assert (outcome.reason, [record for record in outcome.records if record.hash]) == ("interrupted", [])
    assert kept_in(tmp_path).get("foresight") is None
    monkeypatch.setattr(calibration, "take", fine)
    assert Fake(tmp_path, trials=4).campaign.run().reason == "trials"
    assert len(timed) == EFFORT.segments + EFFORT.networks


@pytest.mark.parametrize("kept", [{"schema": 99}, {"schema": 1, "targets": {"": {"predictor": {}}}}, ["?"]])
def test_what_another_version_kept_is_not_used(tmp_path: Path, timed: list[str], kept: Any) -> None:
    one = Fake(tmp_path, trials=3)
    one.campaign._store.study.set_user_attr("archdsl:foresight", kept)
    assert one.campaign.run().reason == "trials"
    assert one.told[0].startswith("latency predicted: no, ") and not timed


# --- once ------------------------------------------------------------------------------------------------------------


class Sharing:
    """A process at a study in a journal."""

    def __init__(self, folder: Path, lease_s: float = 60.0):
        storage = open_storage(folder / "study.journal")
        self.study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
        self.interrupts = Interrupts()
        store = StudyStore(self.study, study_lock(storage, "s"))
        self.shared = SharedResults(store, self.interrupts, lease_s=lease_s)


def test_what_is_found_out_once_is_found_out_by_one(tmp_path: Path) -> None:
    found: list[Any] = []
    calls: list[int] = []

    def find_out() -> dict[str, Any]:
        calls.append(1)
        time.sleep(0.3)
        return {"who": len(calls), "what": [0.1, None]}

    sharing = [Sharing(tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda one=one: found.append(one.shared.compute_once("x", find_out))) for one in sharing
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"who": 1, "what": [0.1, None]}] * 4
    assert Sharing(tmp_path).shared.compute_once("x", lambda: 1 / 0) == found[0]


def test_an_error_leaves_it_to_the_next(tmp_path: Path) -> None:
    one, other = Sharing(tmp_path), Sharing(tmp_path)
    with pytest.raises(ZeroDivisionError):
        one.shared.compute_once("x", lambda: 1 / 0)
    begun = time.monotonic()
    assert other.shared.compute_once("x", lambda: 5) == 5 == one.shared.compute_once("x", lambda: 6)
    assert time.monotonic() - begun < 1


def test_a_short_search_uses_what_a_longer_one_had_learnt(tmp_path: Path) -> None:
    space, sharing = fake_space(SMALL), Sharing(tmp_path)
    said: list[str] = []
    PredictedLatencies(space, {"": HERE}, effort=None).prepare(sharing.shared, said.append)
    assert not said and sharing.shared.read("foresight") is None
    sharing.study.set_user_attr("archdsl:foresight", {"schema": SCHEMA, "targets": {"": {"why_not": "it rained"}}})
    short = PredictedLatencies(space, {"": HERE}, effort=None)
    short.prepare(sharing.shared, said.append)
    assert not said and short.notes == {"latency": "no, it rained"}


def test_the_claim_of_a_dead_process_passes_at_once_and_that_of_a_silent_one_elsewhere_with_its_lease(
    tmp_path: Path,
) -> None:
    one = Sharing(tmp_path)
    dead = {**this_process(), "started": long_ago(), "worker": "w", "lease_until": time.time() + 1000, "lease_s": 1000}
    one.study.set_user_attr("archdsl:x:claim", dead)
    assert one.shared.compute_once("x", lambda: 5) == 5
    silent = {**dead, "host": "elsewhere", "lease_until": time.time() + 0.5}
    one.study.set_user_attr("archdsl:y:claim", silent)
    begun = time.monotonic()
    assert one.shared.compute_once("y", lambda: 6) == 6
    assert 0.3 < time.monotonic() - begun < 5


def test_a_claim_is_renewed_while_the_work_goes_on(tmp_path: Path) -> None:
    one, other = Sharing(tmp_path, lease_s=0.4), Sharing(tmp_path)
    seen: list[float] = []

    def find_out() -> int:
        for _ in range(12):
            time.sleep(0.1)
            seen.append(other.shared.read("x:claim")["lease_until"] - time.time())
        return 5

    assert one.shared.compute_once("x", find_out) == 5
    assert min(seen) > -0.2 and len({round(left + i / 10, 1) for i, left in enumerate(seen)}) > 1


def test_who_waits_can_be_interrupted(tmp_path: Path) -> None:
    one = Sharing(tmp_path)
    there = {**this_process(), "host": "elsewhere", "worker": "w", "lease_until": time.time() + 1000, "lease_s": 1000}
    one.study.set_user_attr("archdsl:x:claim", there)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(Interrupted), one.interrupts:
        one.shared.compute_once("x", lambda: 5)
    timer.join()


# --- what proposals make of it ---------------------------------------------------------------------------------------


def foreseeing(space: Space, networks: list[CandidateNetwork], width: float, share: float = 1.0) -> Any:
    """Foresees a share of the networks at what they take, as an estimate so much wide to either side."""
    times_ms = {network.hash: computed_ms(Subject.network(network.spec, HERE)) for network in networks}
    some = set(list(times_ms)[: int(share * len(times_ms))])

    def foresee(assignment: dict[str, int]) -> KnownCosts:
        spec = space.spec(assignment)
        counts, hash, training = cost(spec), identity(spec, training=False), identity(spec)
        known = {"params": counts.params, "macs": counts.macs}
        if hash not in some:
            return KnownCosts(training, known)
        ms = times_ms[hash]
        values, ends = {"latency": ms, "throughput": 1000 / ms}, (ms * (1 - width), ms * (1 + width))
        intervals = {"latency": ends, "throughput": (1000 / ends[1], 1000 / ends[0])} if width else {}
        return KnownCosts(training, {**known, **values}, intervals)

    return foresee, times_ms


@pytest.mark.parametrize("kind", ["latency", "throughput"])
def test_an_estimate_rules_a_network_out_only_when_its_whole_interval_breaks_the_limit(
    networks: list[CandidateNetwork], kind: str
) -> None:
    """The limit lies 5 % below the fastest network."""
    space = fake_space()
    objectives = chosen(["params"], ["accuracy", "params"])
    for width, is_proposed in ((0.0, False), (0.04, False), (0.1, True)):
        foresee, times_ms = foreseeing(space, networks, width)
        limit = 0.95 * min(times_ms.values())
        bounds: Any = DurationBounds(max=limit) if kind == "latency" else RateBounds(min=1000 / limit)
        assignment = Proposer(space, objectives, foresee, constraints={kind: bounds}).propose([], 0)
        assert (assignment is not None) == is_proposed
        if assignment is not None:
            assert times_ms[identity(space.spec(assignment), training=False)] * (1 - width) <= limit


def finished(networks: list[CandidateNetwork]) -> list[Record]:
    """Trials of which no latency is known."""
    return [
        Record(
            number,
            "complete",
            network.assignment,
            identity(network.spec),
            None,
            network.cost.params,
            network.cost.macs,
            accuracy=fake_accuracy(0.5 + number / 100),
            values=(0.5 + number / 100, network.cost.params),
        )
        for number, network in enumerate(networks)
    ]


def test_an_estimate_is_less_sure_than_what_is_known(networks: list[CandidateNetwork]) -> None:
    """Near a limit an estimate may keep to it or not, in proportion to its interval; what is known does or does not."""
    space, objectives = fake_space(), chosen(["params"], ["accuracy", "params"])
    for width in (0.2, 0.0):
        foresee, times_ms = foreseeing(space, networks, width)
        limit = statistics.median(times_ms.values())
        proposer = Proposer(space, objectives, foresee, constraints={"latency": DurationBounds(max=limit)})
        candidates = proposer._candidates((network.assignment for network in networks), set())
        acquisition = proposer._acquisition
        mean, sd = acquisition._posterior(candidates, acquisition.observe(finished(networks[:4]), [], random.Random(0)))
        doubt = sd[:, acquisition._columns.names.index("latency")]
        assert doubt == pytest.approx(len(candidates) * [width / 1.645], rel=0.15)
        near = [abs(c.values["latency"] / limit - 1) < 0.05 for c in candidates]
        chance = acquisition._feasibility(mean, sd)[near]
        assert len(chance) and (((chance > 0.2) & (chance < 0.8)) == (width > 0)).all()


def test_estimates_for_some_networks_teach_the_guess_for_the_others(networks: list[CandidateNetwork]) -> None:
    """No trial has a latency; half of the networks are foreseen. Those that are not are guessed from these."""
    space, objectives = fake_space(), chosen(["latency"], ["accuracy", "latency"])
    shuffled = random.Random(1).sample(networks, len(networks))
    errors = []
    for share in (0.5, 0.0):
        foresee, times_ms = foreseeing(space, shuffled, 0.02, share)
        proposer = Proposer(space, objectives, foresee)
        records = [Record(0, "failed", networks[0].assignment, "none", rule="crash")]
        acquisition = proposer._acquisition
        trials = acquisition.observe(records, [], random.Random(0))
        candidates = proposer._candidates((network.assignment for network in networks), set())
        mean, _ = acquisition._posterior(candidates, trials)
        column = acquisition._columns.names.index("latency")
        hashes = [identity(space.spec(dict(c.assignment)), training=False) for c in candidates]
        guessed_ms = [exp(logarithm) for logarithm in mean[:, column]]
        off = [abs(ms / times_ms[hash] - 1) for ms, hash in zip(guessed_ms, hashes, strict=True)]
        unforeseen = ["latency" not in candidate.values for candidate in candidates]
        errors.append(statistics.mean(compress(off, unforeseen)))
    assert errors[0] < 0.05 < errors[1]


# --- searches --------------------------------------------------------------------------------------------------------

TINY = """
name: tiny
base: micro_swin_free
choices:
  stages.0.depth: [1, 2]
  stages.1.window: [2, 4]
  defaults: [{norm: layer, act: gelu}, {norm: batch, act: relu}]
objectives:
  accuracy:
    train:
      data: {type: synthetic, num_train: 64, num_val: 64}
      recipe: {extends: quick, epochs: 1, batch: 32}
  latency: {runtime: onnxruntime}
search: {trials: 8, seed: 0, start: [micro_swin_free], confirm: {timings: false}}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_a_search_says_what_is_foreseen_and_from_what(
    tiny: Path,
    tmp_path: Path,
    timed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    training: Any = FakeTraining()
    training.close, training.name, training.kind, training.agreement = lambda: None, "fake", "train", None
    monkeypatch.setattr(SearchParts, "_trainers", lambda self, folder, report: training)
    monkeypatch.setattr(LatencyEvaluator, "__call__", lambda self, spec: fake_latency(spec))
    out = tmp_path / "run"
    assert run(["search", str(tiny), "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert "learning latencies on onnxruntime: 15 segments, 2 networks …\nlatency predicted: of " in printed.err
    result = json.loads(printed.out)
    assert "from 15 segments and 2 networks on onnxruntime on cpu, fp32, batch 1" in result["foreseen"]["latency"]
    assert "latency predicted" in (out / "report.html").read_text()
    num_timed = len(timed)
    assert num_timed == 17 and dict(search(tiny, out=out).predicted) == result["foreseen"] and len(timed) == num_timed


@pytest.mark.alone
def test_latencies_learnt_on_a_real_runtime_are_near_those_measured_there(tmp_path: Path) -> None:
    space, sharing = fake_space(SMALL), Sharing(tmp_path)
    foresight = PredictedLatencies(space, {"": HERE}, effort=Effort(14, 2), network_s=0.1)
    foresight.prepare(sharing.shared, lambda doing: None)
    assert foresight.notes["latency"].startswith("of ")
    measure = LatencyEvaluator(HERE, budget_s=0.1)
    errors = []
    for network in networks_of(space):
        seen = foresight.of(network.spec, network.hash)
        if "latency" in seen.values and len(errors) < 4:
            errors.append(abs(seen.values["latency"] / measure(network.spec).median_ms - 1))
    assert len(errors) >= 3 and statistics.median(errors) < 0.5  # some percent on a quiet machine


def test_learning_can_be_left_out_and_is_then_left_out_for_good(tiny: Path, tmp_path: Path) -> None:
    null = {"objectives": {"latency": {"runtime": "null"}, "params": {}}}
    result = search(tiny, out=tmp_path / "run", set={**null, "search.foresee": False})
    assert result.reason == "trials" and not result.predicted
    with pytest.raises(ArchError, match="foresee: false -> "):
        search(tiny, out=tmp_path / "run", set=null)


def test_what_is_learnt_depends_on_what_the_search_pays_for(tiny: Path) -> None:
    def foresight(sampler: str = "ehvi", trials: int = 16, **changes: Any) -> PredictedLatencies | None:
        parts = SearchParts(load_space(tiny, changes), (), None)
        return parts._predicted(StudyConfig("tiny", parts.objectives, trials, 0, sampler))

    full, short = foresight(), foresight(trials=FEWEST_TRIALS - 1)
    assert full is not None and full.targets == {"": HERE} and full.effort == Effort(32, 3)
    assert short is not None and short.effort is None
    assert foresight("tpe") is None
    assert foresight(**{"search.foresee": False}) is None
    untrained = foresight(objectives={"latency": {"runtime": "onnxruntime"}, "params": {}})
    assert untrained is not None and untrained.effort is None
    memory = foresight(objectives={"accuracy": {"train": {"data": "synthetic"}}, "peak_memory": {}})
    assert memory is not None and not memory.targets
