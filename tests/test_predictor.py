"""The predictor: right where latency is a formula, honest about its error, silent about what it cannot know.

What it must get right on real machines is measured by `benchmarks/predictor.py`.
"""

from __future__ import annotations

import csv
import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_study import fake_space

import archdsl
from archdsl.cli.main import run
from archdsl.compiler import compile
from archdsl.errors import MeasureError
from archdsl.failures import reason_of
from archdsl.ir.graph import Graph
from archdsl.latency import Timing, TimingCache, close_workers, compare, measure
from archdsl.latency.predictor import calibration
from archdsl.latency.predictor.calibration import Subject, calibrate, choose_segments, take
from archdsl.latency.predictor.holdout import check, fitted_line, hold_out, mape, spearman
from archdsl.latency.predictor.model import RatioModel, Sample, byte_price
from archdsl.latency.predictor.networks import CandidateNetwork, networks_of
from archdsl.latency.predictor.predictions import beside, forecast, known_latencies
from archdsl.latency.predictor.predictor import Calibrated, NetworkSegments, Prediction, Predictor
from archdsl.latency.predictor.segments import segment_artefact
from archdsl.passes.segments import segments_of
from archdsl.report.prediction_rows import differences
from archdsl.runtimes.reference import expected_of
from archdsl.runtimes.target import Target, resolve

NULL = Target.parse("null")


@pytest.fixture(autouse=True)
def _no_worker_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    yield
    close_workers()


# --- the model ------------------------------------------------------------------------------------------------------


class World:
    """Made-up networks of made-up segments, each of which takes longer or less in a network than by itself."""

    def __init__(self, seed: int, *, num_segments: int = 12, num_networks: int = 40, noise: float = 0.015):
        draw = np.random.default_rng(seed)
        alone_S = draw.lognormal(1, 1, num_segments)
        common, off_S = draw.normal(1, 0.1), draw.normal(0, 0.08, num_segments)
        self.samples: list[Sample] = []
        self.times_ms: list[float] = []
        for _ in range(num_networks):
            counts_S = draw.integers(0, 6, num_segments)
            counts_S[0] = 1
            total = float(counts_S @ alone_S)
            shares = {str(s): float(counts_S[s] * alone_S[s] / total) for s in np.flatnonzero(counts_S)}
            ratio = common + sum(share * off_S[int(s)] for s, share in shares.items()) + draw.normal(0, noise)
            self.samples.append(Sample(total, shares))
            self.times_ms.append(total * float(ratio))

    def learnt(self, which: list[int]) -> RatioModel:
        return RatioModel([self.samples[i] for i in which], [self.times_ms[i] for i in which])


def coverage_and_error(num_learnt: int, *, active: bool, worlds: int = 16) -> tuple[float, float]:
    inside, errors = [], []
    for seed in range(worlds):
        world = World(seed)
        which = RatioModel([], []).choose(world.samples, num_learnt) if active else list(range(num_learnt))
        model = world.learnt(which)
        for i in sorted(set(range(len(world.samples))) - set(which)):
            found = model.quantiles(world.samples[i])
            inside.append(found.low <= world.times_ms[i] <= found.high)
            errors.append(abs(found.median / world.times_ms[i] - 1))
    return float(np.mean(inside)), float(np.mean(errors))


@pytest.mark.parametrize("num_learnt", [2, 4, 8])
def test_the_interval_holds_what_is_measured_as_often_as_it_says(num_learnt: int):
    share, error = coverage_and_error(num_learnt, active=True)
    assert 0.85 <= share <= 0.98
    assert error < 0.03


def test_choosing_what_to_measure_beats_chance():
    errors = {active: [coverage_and_error(n, active=active, worlds=12)[1] for n in (3, 6)] for active in (True, False)}
    assert errors[True][0] < errors[False][0] and errors[True][1] < errors[False][1]


def test_more_networks_make_the_interval_narrower():
    world = World(3)
    widths = []
    for count in (1, 4, 12):
        found = world.learnt(list(range(count))).quantiles(world.samples[-1])
        widths.append((found.high - found.low) / found.median)
    assert widths == sorted(widths, reverse=True) and widths[2] < 0.6 * widths[0]


def test_a_segment_that_no_calibration_network_has_makes_the_interval_wider():
    world = World(3)
    model, known = world.learnt(list(range(8))), world.samples[-1]
    strange = Sample(known.sum_ms, {f"new {key}": share for key, share in known.shares.items()})
    for one, other in ((known, strange), (known, replace(known, loose=0.05**2))):
        narrow, wide = model.quantiles(one), model.quantiles(other)
        assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_without_networks_the_prior_speaks():
    found = RatioModel([], []).quantiles(Sample(10.0, {"a": 1.0}))
    assert found.median == pytest.approx(10.0) and found.low < 9.5 and found.high > 10.5
    assert RatioModel([], []).left_out_error is None


def test_a_network_left_out_is_predicted_from_the_others():
    world = World(5)
    model = world.learnt(list(range(6)))
    others = world.learnt([0, 1, 2, 4, 5])
    assert model.left_out[3] == others.quantiles(world.samples[3])
    errors = [abs(q.median / t - 1) for q, t in zip(model.left_out, world.times_ms, strict=False)]
    assert model.left_out_error == pytest.approx(np.mean(errors))


def test_what_was_measured_already_is_not_chosen_again():
    world = World(1)
    first = RatioModel([], []).choose(world.samples, 5)
    assert len(set(first)) == 5
    assert RatioModel([], []).choose(world.samples, 3, given=first[:2]) == first[2:]
    assert len(RatioModel([], []).choose(world.samples[:4], 9)) == 4
    assert sorted(RatioModel([], []).choose([Sample(1.0, {"a": 1.0})] * 3, 3)) == [0, 1, 2]  # equal ones too


def test_moves_are_priced_by_their_bytes():
    price = byte_price([1000, 2000, 4000, 8000], [0.2, 0.3, 0.5, 0.9])
    assert price is not None
    assert price.ms(16_000) == pytest.approx(1.7) and price.ms(0) == pytest.approx(0.1)
    assert price.spread == 0.1  # the least that is believed
    rough = byte_price([1000, 2000, 4000, 8000], [0.1, 0.5, 0.3, 1.4])
    assert rough is not None and rough.spread > 0.3
    assert byte_price([1000, 2000], [0.1, 0.2]) is None
    same = byte_price([1000] * 3, [0.1, 0.1, 0.1])
    assert same is not None and same.ms(2000) == pytest.approx(0.2)
    falling = byte_price([1000, 2000, 4000], [0.3, 0.2, 0.1])
    assert falling is not None and falling.slope_ms == 0 and 0.1 < falling.start_ms < 0.3


SIZES = [25_088, 50_176, 100_352, 200_704, 401_408, 802_816]


def test_a_move_that_seems_to_take_nothing_does_not_decide_what_all_cost():
    """It was timed at what a call takes, or below: a short move may be."""
    sound = byte_price(SIZES, [0.004, 0.006, 0.011, 0.02, 0.041, 0.08])
    dipped = byte_price(SIZES, [0.0, 0.006, 0.011, 0.02, 0.041, 0.08])
    assert sound is not None and dipped is not None
    for size in SIZES[2:]:
        assert dipped.ms(size) == pytest.approx(sound.ms(size), rel=0.1)
    assert dipped.spread < 0.3
    same = byte_price([1000] * 4, [0.1, 0.1, 0.0, 0.1])
    assert same is not None and same.ms(1000) == pytest.approx(0.1, rel=0.3)


def test_moves_that_take_the_same_whatever_their_size_have_one_price():
    flat = byte_price([4096, 8192, 16_384], [0.00069, 0.00062, 0.00064])
    assert flat is not None and flat.spread == 0.1
    assert [flat.ms(size) for size in (4096, 65_536)] == [pytest.approx(0.00065, rel=0.03)] * 2


def test_where_most_moves_seem_to_take_nothing_the_others_still_count():
    price = byte_price([1000, 2000, 4000], [0.0, 0.0, 0.3])
    assert price is not None and 0.01 < price.ms(4000) < 0.3 and price.spread > 0.5


@pytest.mark.parametrize("times_ms", [[0.0] * 3, [0.0, 0.0, 0.3], [0.3, 0.0, 0.0], [0.0, 0.1, 0.5]])
def test_a_price_is_never_below_zero(times_ms: list[float]):
    price = byte_price([1000, 2000, 4000], times_ms)
    assert price is not None and all(0 <= price.ms(size) < 1 for size in (0, 1000, 10_000)) and price.spread >= 0.1


# --- a machine whose latency is a formula ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks() -> list[CandidateNetwork]:
    return networks_of(fake_space())


def formula_ms(network: CandidateNetwork, folder: Path) -> float:
    subject = Subject.network(network.spec, NULL)
    return measure(subject.make(folder), NULL).median_ms


def test_sums_are_exact_where_latency_is_a_formula(
    networks: list[CandidateNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration, "MOST_MOVES", 1000)
    made = forecast(networks, NULL, num_networks=3)
    assert not made.refused and len(made.predicted) == len(networks) > 50
    for network, prediction in made.predicted[::7]:
        assert prediction.median_ms == pytest.approx(formula_ms(network, tmp_path), rel=1e-6)
        assert prediction.num_priced == 0
    assert made.calibration.predictor.left_out_error == pytest.approx(0, abs=1e-6)


def test_priced_moves_cost_little_accuracy(
    networks: list[CandidateNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration, "MOST_MOVES", 4)
    made = forecast(networks, NULL, num_networks=3)
    priced = [(network, prediction) for network, prediction in made.predicted if prediction.num_priced]
    assert priced and not made.refused
    for network, prediction in priced[::5]:
        assert prediction.median_ms == pytest.approx(formula_ms(network, tmp_path), rel=1e-3)


def test_a_second_prediction_measures_nothing(networks: list[CandidateNetwork]):
    cache = TimingCache()
    first = forecast(networks, NULL, cache=cache, num_networks=4)
    again = forecast(networks, NULL, cache=cache, num_networks=4)
    known = forecast(networks, NULL, cache=cache, num_networks=4, only_known=True)
    assert (first.calibration.segments_measured, first.calibration.networks_measured) == (first.calibration.segments, 4)
    for other in (again, known):
        assert (other.calibration.segments_measured, other.calibration.networks_measured) == (0, 0)
        medians = [prediction.median_ms for _, prediction in other.predicted]
        assert medians == pytest.approx([prediction.median_ms for _, prediction in first.predicted], rel=1e-9)


def test_all_segments_that_are_known_are_used_however_many_they_are(
    networks: list[CandidateNetwork], monkeypatch: pytest.MonkeyPatch
):
    cache = TimingCache()
    first = forecast(networks, NULL, cache=cache, num_networks=3, most_segments=1000)
    known = forecast(networks, NULL, cache=cache, only_known=True, most_segments=8)
    assert not first.refused and not known.refused
    assert known.calibration.segments == first.calibration.segments > 8


class Contended:
    """`compare` whose medians and contention are told beforehand; it keeps its timings as the real one does."""

    def __init__(self, *told: tuple[float, bool]):
        self.told = list(told)

    def __call__(self, artefacts: Any, target: Target, *, cache: Any = None, **how: Any) -> Any:
        median_ms, contended = self.told.pop(0)
        busy = {"contended": contended, "contention": "others" if contended else None}
        changes = dict.fromkeys(("median_ms", "ci_low_ms", "ci_high_ms", "p5_ms", "p95_ms", "p99_ms"), median_ms)
        found = compare(artefacts, target, **how)
        timings = tuple(timing.model_copy(update={**changes, **busy}) for timing in found.timings)
        assert cache is not None, "how far measurements differ here is learnt and used each time"
        for artefact, timing in zip(artefacts, timings, strict=True):
            cache.put(artefact, resolve(target).fingerprint, timing)
        return replace(found, timings=timings)


@pytest.mark.parametrize(
    ("told", "counts"),
    [([(1.0, True), (2.0, False)], 2.0), ([(1.0, True), (2.0, True), (3.0, True)], 1.0), ([(1.0, False)], 1.0)],
    ids=["the second is calmer", "none is calmer", "the first is calm"],
)
def test_the_calmest_attempt_is_what_is_returned_and_what_is_kept(
    told: list[tuple[float, bool]], counts: float, monkeypatch: pytest.MonkeyPatch
):
    cache, subject = TimingCache(), Subject.call(NULL)
    attempts = Contended(*told)
    monkeypatch.setattr(calibration, "compare", attempts)
    (found,) = take([subject], NULL, cache=cache).timings
    kept = subject.known(NULL, cache)
    assert (found.median_ms, attempts.told) == (counts, [])
    assert kept is not None and kept.median_ms == counts


def test_the_cache_says_what_is_a_segment(networks: list[CandidateNetwork]):
    cache = TimingCache()
    forecast(networks[:4], NULL, cache=cache, num_networks=2)
    builds = Counter(entry.build for entry in cache.entries())
    assert set(builds) == {"call fp32", "segment fp32", "deploy fp32"}
    assert builds["call fp32"] == 1 and builds["deploy fp32"] == 2


def test_threads_and_batches_have_predictors_of_their_own(networks: list[CandidateNetwork]):
    cache = TimingCache()
    forecast(networks[:4], NULL, cache=cache, num_networks=2)
    other = Target.parse({"runtime": "null", "batch": 8})
    with pytest.raises(MeasureError, match="no segment was ever timed on null on cpu, fp32, batch 8"):
        forecast(networks[:4], other, cache=cache, only_known=True)


def test_the_range_of_a_space_is_told_from_the_cache_alone():
    space, cache = fake_space(), TimingCache()
    assert known_latencies(space, NULL, cache) is None
    made = forecast(networks_of(space), NULL, cache=cache, num_networks=3)
    known = known_latencies(space, NULL, cache)
    assert known is not None
    assert known.low_ms == pytest.approx(made.predicted[0][1].median_ms)
    assert known.high_ms == pytest.approx(made.predicted[-1][1].median_ms)


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictor(networks: list[CandidateNetwork]) -> Predictor:
    pairs = [(network.spec, network.parts) for network in networks[:8]]
    made = calibrate(pairs, NULL, num_networks=2)
    close_workers()
    return made.predictor


def test_a_network_with_an_unknown_segment_is_not_predicted(predictor: Predictor):
    with pytest.raises(
        MeasureError, match=r"micro_swin has segments that were not measured on null .*: stem, "
    ) as error:
        predictor.predict(archdsl.load("micro_swin", set={"stem.dim": 24}))
    assert reason_of(error.value) == "unknown-segment" and "and " in str(error.value)
    assert error.value.problems[0].hint == "measure them first, or the network itself"


def test_a_network_far_from_the_calibration_is_not_predicted(predictor: Predictor, networks: list[CandidateNetwork]):
    near = networks[0].parts
    block = max(near.counts, key=lambda key: near.segments[key].cost.macs)
    far = replace(near, name="deep", counts={**near.counts, block: 40})
    with pytest.raises(
        MeasureError, match=r"the segments of deep take .* ms together, .*: too far to predict"
    ) as error:
        predictor.predict(far)
    assert reason_of(error.value) == "extrapolation"


def test_another_target_is_refused(predictor: Predictor, networks: list[CandidateNetwork]):
    assert predictor.predict(networks[0].parts, NULL).target == NULL
    with pytest.raises(
        MeasureError, match=r"this predictor is for null .*, not for null on cpu, fp32, batch 2"
    ) as error:
        predictor.predict(networks[0].parts, Target.parse({"runtime": "null", "batch": 2}))
    assert reason_of(error.value) == "other-target"


def test_a_predictor_that_has_learnt_nothing_predicts_nothing(predictor: Predictor, networks: list[CandidateNetwork]):
    empty = Predictor(NULL, predictor.call_ms, predictor.segments_ms)
    with pytest.raises(MeasureError, match="no network was measured as a whole") as error:
        empty.predict(networks[0].parts)
    assert reason_of(error.value) == "extrapolation"


def test_runtimes_that_take_whole_specs_are_refused(networks: list[CandidateNetwork]):
    with pytest.raises(MeasureError, match="torch is given whole specs") as error:
        forecast(networks[:2], Target.parse("torch"))
    assert reason_of(error.value) == "wrong-artefact"
    with pytest.raises(MeasureError, match="torch is given whole specs"):
        segment_artefact(next(iter(networks[0].parts.segments.values())), Target.parse("torch"), Path())


def test_a_segment_that_answers_otherwise_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The gate of a segment is what PyTorch answers, as for whole networks."""
    segment = next(s for s in segments_of(compile("micro_swin")) if s.name == "stages.0.blocks.0")
    target = Target.parse("onnxruntime")
    subject = Subject.segment(segment, target)

    def wrong(graph: Graph, precision: str = "fp32") -> Any:
        right = expected_of(graph, precision)
        return replace(right, outputs=right.outputs * 1.01)

    monkeypatch.setattr(calibration, "expected_of", wrong)
    with pytest.raises(MeasureError, match=r"stages\.0\.blocks\.0: the output differs by") as error:
        take([subject], target, budget_s=0.02)
    assert reason_of(error.value) == "numeric-gate"


# --- what it says ---------------------------------------------------------------------------------------------------


def test_a_prediction_does_not_look_like_a_measurement():
    made = Prediction(12.34, 11.81, 12.93, 0.9, NULL, 20, 0, 8, 0.012, "2026-01-01T00:00:00Z")
    assert str(made) == "≈ 12.3 ms (11.8–12.9 predicted)"
    facts = made.as_json()
    assert facts["predicted"] is True and facts["level"] == 0.9 and facts["target"]["runtime"] == "null"
    assert {"num_segments", "num_networks", "left_out_error", "date"} <= set(facts)
    assert str(replace(made, median_ms=0.12345, low_ms=0.1201, high_ms=0.1273)) == (
        "≈ 0.1235 ms (0.1201–0.1273 predicted)"
    )


def test_predicting_from_threads_gives_the_same(predictor: Predictor, networks: list[CandidateNetwork]):
    alone = [predictor.predict(network.spec).median_ms for network in networks[:8]]
    found: dict[int, list[float]] = {}

    def work(number: int) -> None:
        found[number] = [predictor.predict(network.spec).median_ms for network in networks[:8]]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [alone] * 4


def test_ranks_errors_and_lines():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [40, 30, 20, 10]) == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)  # ties share a rank
    assert spearman([1, 2], [1, 2]) is None and spearman([1, 1, 1], [1, 2, 3]) is None
    assert mape([110, 90], [100, 100]) == pytest.approx(0.1)
    assert fitted_line([1, 2, 3], [5, 7, 9])(10) == pytest.approx(23)
    assert fitted_line([2, 2], [4, 6])(4) == pytest.approx(10)


# --- what is measured -----------------------------------------------------------------------------------------------


def test_the_largest_shares_are_timed_first_and_some_moves(networks: list[CandidateNetwork]):
    parts = [network.parts for network in networks]
    chosen = choose_segments(parts, 12)
    assert len(chosen) == 12 and sum(segment.only_moves for segment in chosen) == 3
    of_one = [segment for segment in choose_segments(parts[:1], 7) if not segment.only_moves]
    assert len(of_one) == 4 and all(".blocks." in segment.name for segment in of_one)  # not the stem, not the head
    everything = {key for one in parts for key, segment in one.segments.items() if not segment.only_moves}
    assert {segment.key for segment in choose_segments(parts, 1000) if not segment.only_moves} == everything


def test_networks_that_would_be_refused_are_measured_first(networks: list[CandidateNetwork]):
    """The shortest and the longest network are learnt from when they are far apart."""
    made = forecast(networks, NULL, num_networks=2)
    sums = sorted(made.calibration.predictor.sample(network.parts).sum_ms for network in networks)
    learnt = sorted(sample.sum_ms for sample in made.calibration.predictor.model.samples)
    assert sums[-1] > 2**0.5 * sums[0]
    assert learnt == pytest.approx([sums[0], sums[-1]])


def test_the_next_network_is_one_that_is_not_known(predictor: Predictor, networks: list[CandidateNetwork]):
    candidates = [network.parts for network in networks[:8]]
    seen = list(predictor.calibration)
    while numbers := Predictor(
        NULL, predictor.call_ms, predictor.segments_ms, seen, sizes=predictor.sizes
    ).next_networks(candidates, 1):
        (number,) = numbers
        assert candidates[number].counts not in [one.parts.counts for one in seen]
        seen.append(Calibrated(candidates[number], 1.0))
    assert len(seen) == len({frozenset(parts.counts.items()) for parts in candidates})


def test_networks_of_a_space_are_distinct_and_keep_its_bounds():
    space = fake_space()
    found = networks_of(space)
    assert len({network.hash for network in found}) == len(found)
    assert found[0].spec.name == "micro_swin" and differences(space, found[0])(found[0]) == "the base"
    bound = sorted(network.cost.macs for network in found)[20]
    bounded = fake_space(
        (Path(__file__).parent / "fake_study.py").read_text().split('SPACE = """')[1].split('"""')[0]
        + f"constraints: {{macs: {{max: {bound}}}}}\n"
    )
    assert max(network.cost.macs for network in networks_of(bounded)) == bound
    assert len(networks_of(space, sample=7)) == 7


# --- the command ----------------------------------------------------------------------------------------------------


def predicted_json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = run(["predict", *arguments, "--json"])
    shown = capfd.readouterr()
    assert code == 0, shown.err
    facts: dict[str, Any] = json.loads(shown.out)
    return facts


@pytest.fixture
def space_file(tmp_path: Path) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(fake_space().to_yaml())
    return str(path)


def test_the_command_predicts_and_checks_itself(space_file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    table = tmp_path / "all.csv"
    facts = predicted_json(
        capfd, space_file, "--on", "null", "--sample", "30", "--networks", "3", "--check", "12", "--csv", str(table)
    )
    assert facts["networks"] == facts["networks_measured"] == 3 and facts["not_predicted"] == []
    medians = [row["median_ms"] for row in facts["predictions"]]
    assert medians == sorted(medians) and all(row["predicted"] for row in facts["predictions"])
    (base,) = [row for row in facts["predictions"] if row["differs"] == "the base"]
    assert base["ratio"] == 1
    ours, macs, params = facts["check"]["qualities"]
    assert ours["mape"] < 1e-6 and ours["spearman"] == pytest.approx(1) and ours["coverage"] == 1
    assert macs["mape"] > 0.001 < params["mape"] and macs["coverage"] is None
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == len(medians) and float(rows[0]["predicted_median_ms"]) == medians[0]
    assert (
        predicted_json(capfd, space_file, "--on", "null", "--sample", "30", "--networks", "3")["segments_measured"] == 0
    )


def test_the_command_says_what_it_did_not_predict(space_file: str, capfd: pytest.CaptureFixture[str]):
    assert (
        run(
            [
                "predict",
                space_file,
                "--on",
                "null",
                "--sample",
                "20",
                "--networks",
                "2",
                "--segments",
                "8",
                "--top",
                "3",
            ]
        )
        == 0
    )
    shown = capfd.readouterr().out
    assert "not predicted: " in shown and "[unknown-segment], such as: micro_swin has segments" in shown
    assert "`--segments` allows more" in shown


def test_the_command_shows_the_fastest(space_file: str, capfd: pytest.CaptureFixture[str]):
    assert (
        run(["predict", space_file, "--on", "null", "--sample", "20", "--networks", "3", "--check", "5", "--top", "2"])
        == 0
    )
    shown = capfd.readouterr()
    assert shown.out.count("predicted)") == 2 and "stages.0.depth=" in shown.out
    assert "MACs, a line" in shown.out and "timing" in shown.err


def test_a_table_that_cannot_be_written_is_told_before_anything_is_timed(
    space_file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    for path in (tmp_path / "no such folder" / "all.csv", tmp_path):
        assert run(["predict", space_file, "--on", "null", "--sample", "4", "--csv", str(path)]) == 1
        shown = capfd.readouterr()
        assert "[cannot-write]" in shown.err and "looking at" not in shown.err and not shown.out
    before = {path.name for path in tmp_path.iterdir()}
    assert run(["predict", space_file, "--on", "null", "--sample", "4", "--csv", str(tmp_path / "all.csv")]) == 0
    assert {path.name for path in tmp_path.iterdir()} - before - {"cache"} == {"all.csv"}


@pytest.mark.parametrize(
    ("networks", "told"), [("3", "only 1 network is left to check"), ("4", "no network is left to check")]
)
def test_how_many_networks_are_left_to_check_is_told(
    space_file: str, capfd: pytest.CaptureFixture[str], networks: str, told: str
):
    arguments = ["predict", space_file, "--on", "null", "--sample", "4", "--networks", networks, "--check", "5"]
    assert run(arguments) == 0
    assert told in capfd.readouterr().err


def test_nothing_known_and_nothing_to_be_measured(space_file: str, capfd: pytest.CaptureFixture[str]):
    assert run(["predict", space_file, "--on", "null", "--no-measure"]) == 2
    assert "no segment was ever timed on null" in capfd.readouterr().err


def test_a_single_spec_is_no_space(capfd: pytest.CaptureFixture[str]):
    assert run(["predict", "micro_swin", "--on", "null"]) == 1
    assert "micro_swin is one network" in capfd.readouterr().err


def test_show_tells_predicted_latencies_once_they_are_known(
    space_file: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("archdsl.cli.show.Target", lambda: NULL)
    assert run(["show", space_file]) == 0
    assert "predicted latency" not in capfd.readouterr().out
    facts = predicted_json(capfd, space_file, "--on", "null", "--networks", "3")
    assert run(["show", space_file]) == 0
    fastest = facts["predictions"][0]["median_ms"]
    shown = capfd.readouterr().out
    assert f"predicted latency: {fastest:.4g} to " in shown
    assert f"(of {len(facts['predictions'])} networks on null on cpu, fp32, batch 1;" in shown
    assert run(["show", space_file, "--json"]) == 0
    known = json.loads(capfd.readouterr().out)["predicted_latency"]
    assert known["low_ms"] == pytest.approx(fastest) and known["target"]["runtime"] == "null"
    assert known["num_predicted"] == len(facts["predictions"])


def test_bench_measures_the_first_network_and_predicts_the_others(capfd: pytest.CaptureFixture[str]):
    specs = ["micro_swin", "micro_swin_free"]
    assert run(["bench", *specs, "--on", "null", "--predict", "--json"]) == 0
    first, second = json.loads(capfd.readouterr().out)["results"]
    assert first["predicted"] is False and "measured" in first["shown"] and "≈" not in first["shown"]
    assert second["predicted"] is True and second["shown"].startswith("≈ ")
    assert run(["bench", *specs, "--on", "null", "--json"]) == 0
    measured = json.loads(capfd.readouterr().out)["results"][1]["median_ms"]
    assert second["median_ms"] == pytest.approx(measured, rel=1e-6)
    assert run(["bench", *specs, "--on", "null", "--predict"]) == 0
    assert "≈ is predicted" in capfd.readouterr().out


def test_the_same_segments_in_another_order_are_another_network():
    """It was not measured, though the predictor cannot tell it from one that was."""
    plain = {"stages.0.shift": False}
    specs = [archdsl.load("micro_swin", set={**plain, "stages.0.mlp_ratio": ratios}) for ratios in ([2, 4], [4, 2])]
    first, second = beside(specs, NULL)
    assert first.network.hash != second.network.hash
    assert first.network.parts.counts == second.network.parts.counts
    assert isinstance(first.result, Timing) and isinstance(second.result, Prediction)
    again = beside([specs[0], specs[0]], NULL)
    assert all(isinstance(one.result, Timing) for one in again)


def test_bench_does_not_predict_other_forms(capfd: pytest.CaptureFixture[str]):
    for options in (["--form", "train"], ["--deadline", "5min"]):
        assert run(["bench", "micro_swin", "--on", "null", "--predict", *options]) == 1
        shown = capfd.readouterr().err
        assert "--predict is about our own networks in their deploy form" in shown and " ".join(options) in shown


def test_a_target_on_which_nothing_is_predicted_does_not_stop_the_others(capfd: pytest.CaptureFixture[str]):
    arguments = ["bench", "micro_swin", "micro_swin_free", "--predict", "--on", "torch,null,null:cuda"]
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert [row["target"]["runtime"] for row in told["results"]] == ["null", "null"]
    assert [(each["target"]["runtime"], each["reason"]) for each in told["failed"]] == [("torch", "wrong-artefact")]
    assert [(each["target"]["device"], each["reason"]) for each in told["skipped"]] == [("cuda", "unknown-name")]
    assert run(arguments) == 0
    shown = capfd.readouterr().out
    assert "failed: torch on cpu, fp32, batch 1: torch is given whole specs" in shown
    assert "skipped: null on cuda, fp32, batch 1: " in shown
    assert run(["bench", "micro_swin", "--predict", "--on", "torch", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["errors"][0]["rule"] == "wrong-artefact"


# --- for real -------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_micro_networks_are_predicted_on_onnx_runtime():
    """Loosely: micro networks take tenths of a millisecond, and this machine may be busy."""
    networks = networks_of(fake_space(), sample=5)
    target, cache = Target.parse("onnxruntime"), TimingCache()
    made = forecast(networks, target, cache=cache, num_networks=3, segment_s=0.02, network_s=0.05)
    assert not made.refused
    found = check(made, hold_out(made, 2), target, budget_s=0.05)
    assert found.qualities[0].mape < 0.5
    assert all(prediction.low_ms > 0 for prediction in found.predictions)


def test_segments_run_in_fp16_and_with_larger_batches(tmp_path: Path):
    for precision, batch in (("fp32", 3), ("fp16", 1)):
        target = Target.parse({"runtime": "onnxruntime", "precision": precision, "batch": batch})
        segments = list(NetworkSegments.of("micro_swin").segments.values())
        artefacts = [segment_artefact(segment, target, tmp_path) for segment in segments]
        references = [expected_of(segment.graph, precision) for segment in segments]
        found = compare(artefacts, target, references=references, budget_s=0.02)
        assert len(found.timings) == len(segments)
