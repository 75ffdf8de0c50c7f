"""What a timing says, what a target accepts, and how sure the intervals are."""

from __future__ import annotations

import numpy as np
import pytest

from archdsl.errors import Place, SpecError
from archdsl.ir.graph import Graph
from archdsl.ir.types import TensorType
from archdsl.latency import Timing, compare
from archdsl.latency.sampling import Samples
from archdsl.latency.statistics import median_interval, paired_ratio, part_medians
from archdsl.latency.summary import Conditions, contention_of, drift_of, num_outliers, summarize
from archdsl.ops.pointwise import Activation
from archdsl.runtimes.artefact import Artefact, OutputShape
from archdsl.runtimes.export import artefact_of_graph
from archdsl.runtimes.protocol import RunConfig
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import Target, resolve
from archdsl.telemetry.cpu import Usage


def timing(**changes):
    fields = {
        "median_ms": 12.34,
        "ci_low_ms": 12.15,
        "ci_high_ms": 12.5,
        "p5_ms": 11.9,
        "p95_ms": 13.0,
        "p99_ms": 14.2,
        "runs": 100,
        "warmup": 10,
        "runtime": "onnxruntime",
        "runtime_version": "1.31.1",
        "device": "cpu",
        "device_name": "a processor",
        "precision": "fp32",
        "batch": 1,
        "threads": 1,
        "environment": {"OMP_WAIT_POLICY": "passive"},
        "cores": (1,),
        "clock_state": "unlocked",
        "cpu_wall_ratio": 0.99,
        "load_average": 0.5,
        "busy_neighbours": 0.1,
        "contended": False,
        "contention": None,
        "drift": None,
        "outliers": 2,
        "graph_hash": "abc",
        "date": "2026-01-02T03:04:05Z",
    }
    return Timing(**{**fields, **changes})


QUIET = Usage(0.0, 0.0, 0.0)


def readings(wall_ms, cpu_share=1.0, usage=QUIET, sessions=()):
    wall_ms = tuple(float(ms) for ms in wall_ms)
    cpu_ms, rounds = tuple(cpu_share * ms for ms in wall_ms), tuple(range(len(wall_ms)))
    return Samples(wall_ms, cpu_ms, rounds, 10, 0.5, usage, sessions)


def test_a_timing_prints_its_uncertainty():
    assert str(timing()) == "12.3 ms ± 0.2"
    assert str(timing(ci_low_ms=12.333, ci_high_ms=12.344)) == "12.340 ms ± 0.007"


def test_a_contended_timing_says_so_when_printed():
    busy = timing(contended=True, contention="the worker got 50% of its core")
    assert str(busy) == "12.3 ms ± 0.2 (contended)"
    assert busy.notes == ("contended: the worker got 50% of its core",)


def test_a_noisy_timing_says_so():
    assert timing(ci_low_ms=12.0, ci_high_ms=14.56).notes == ("this machine was too noisy: ± 18%",)


def test_a_timing_survives_json():
    before = timing()
    assert Timing.from_json(before.as_json()) == before


@pytest.mark.parametrize(
    "change",
    [{"median_ms": float("nan")}, {"runs": 0}, {"ci_low_ms": 13.0}, {"p95_ms": 1.0}, {"batch": "1"}, {"colour": "red"}],
    ids=str,
)
def test_a_timing_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError, match=r"Timing"):
        Timing.from_json({**timing().as_json(), **change})


def test_a_timing_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        timing().median_ms = 1.0


def test_an_interval_is_the_same_for_the_same_runs():
    for seed in range(20):
        runs = list(np.random.default_rng(seed).normal(10, 1, 300))
        assert median_interval(runs) == median_interval(runs)


def test_an_interval_of_equal_runs_has_no_width():
    interval = median_interval([2.0] * 30)
    assert (interval.low, interval.median, interval.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("runs", [1, 2, 5, 7])
def test_few_runs_still_have_an_interval_around_their_median(runs):
    interval = median_interval([float(i) for i in range(runs)])
    assert 0 <= interval.low <= interval.median <= interval.high


def test_an_interval_holds_the_true_median_in_nineteen_of_twenty_cases():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        interval = median_interval(list(np.exp(0.05 * random.standard_normal(40))))
        held += interval.low <= 1.0 <= interval.high
    assert held >= 0.93 * 300


@pytest.mark.promise(34)
def test_equal_networks_are_told_apart_in_at_most_one_of_twenty_cases():
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        ours, theirs = np.exp(0.05 * random.standard_normal((2, 40)))
        wrong += paired_ratio(list(ours), list(theirs)).verdict != "same"
    assert wrong <= 0.05 * 300


FIVE_SITTINGS = [i // 8 for i in range(40)]


def with_reload_effect(random, sd=0.03):
    """40 runs in five sessions; where the network lies in memory shifts all runs of a session."""
    return np.repeat(np.exp(sd * random.standard_normal(5)), 8) * np.exp(0.01 * random.standard_normal(40))


def test_equal_networks_are_not_told_apart_by_where_they_lie_in_memory():
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        ours, theirs = with_reload_effect(random), with_reload_effect(random)
        wrong += paired_ratio(list(ours), list(theirs), FIVE_SITTINGS).verdict != "same"
    assert wrong <= 0.05 * 300


def test_what_a_session_shares_counts_once_however_many_runs_it_has():
    sessions = [0] * 60 + [1, 1, 2, 2, 3, 3]
    values = [1.05] * 60 + [0.95, 0.95, 1.04, 1.04, 0.96, 0.96]
    assert part_medians(values, sessions) == [1.05, 0.95, 1.04, 0.96]
    assert paired_ratio(values, [1.0] * 66, sessions).verdict == "same"
    assert paired_ratio(values, [1.0] * 66).verdict == "slower"


class Answering:
    """A worker that answers with readings made beforehand."""

    def __init__(self, readings):
        self.readings = readings

    def run(self, job, *, deadline_s):
        rest = {"runtime_version": "1", "environment": {}, "cores": None, "gpu": None}
        return {"readings": [one.as_json() for one in self.readings], "peak_memory_bytes": [5, None], **rest}


def test_a_comparison_looks_at_the_sessions_of_its_networks():
    sessions = (*[0] * 60, 1, 1, 2, 2, 3, 3)
    theirs = readings([1.0] * 66, sessions=sessions)
    ours = readings([1.05] * 60 + [0.95, 0.95, 1.04, 1.04, 0.96, 0.96], sessions=sessions)
    artefacts = [Artefact("spec", name, (3,), text="") for name in ("a", "b")]
    found = compare(artefacts, Target("torch"), worker=Answering([theirs, ours]))
    assert found.ratios[1].verdict == "same"
    assert [one.sittings for one in found.timings] == [4, 4]
    assert [one.peak_memory_bytes for one in found.timings] == [5, None]
    assert [one.between_runs > 0 for one in found.timings] == [True, True]


def test_a_real_difference_is_told_although_networks_lie_elsewhere_each_time():
    random = np.random.default_rng(0)
    told = 0
    for _ in range(100):
        ours, theirs = 1.2 * with_reload_effect(random), with_reload_effect(random)
        told += paired_ratio(list(ours), list(theirs), FIVE_SITTINGS).verdict == "slower"
    assert told >= 90


def test_an_interval_over_sessions_holds_the_true_median_in_nineteen_of_twenty_cases():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        interval = median_interval(list(with_reload_effect(random)), sessions=FIVE_SITTINGS)
        held += interval.low <= 1.0 <= interval.high
    assert held >= 0.93 * 300


def test_a_ratio_ignores_noise_that_both_networks_share():
    random = np.random.default_rng(0)
    weather = 1 + random.random(40)  # the machine is up to twice as slow, for both alike
    ratio = paired_ratio(list(1.1 * weather), list(weather))
    assert ratio.verdict == "slower"
    assert ratio.median == pytest.approx(1.1)


def test_a_run_on_a_quiet_core_is_not_contended():
    assert contention_of(readings([1.0] * 30, cpu_share=0.99), Target()) is None


@pytest.mark.promise(32)
@pytest.mark.parametrize(
    ("cpu_share", "usage", "words"),
    [
        (0.6, Usage(0.0, 0.0, 0.0), "got 60% of its core"),
        (1.0, Usage(0.4, 0.0, 0.0), "waited for a core 40% of the time"),
        (1.0, Usage(0.0, 0.5, 1.0), "others used 50% of its cores"),
    ],
)
def test_every_sign_of_contention_is_told(cpu_share, usage, words):
    assert words in contention_of(readings([1.0] * 30, cpu_share, usage), Target())


def test_a_computed_latency_is_never_contended():
    assert contention_of(readings([1.0], 0.1, Usage(None, None, None)), Target("null")) is None


def test_drift_is_told_and_a_steady_run_has_none():
    random = np.random.default_rng(0)
    steady = 10 + 0.1 * random.standard_normal(200)
    assert drift_of(tuple(steady)) is None
    assert drift_of(tuple(steady + np.linspace(0, 2, 200))).startswith("slower by 1")


def test_drift_over_sessions_is_a_trend_and_not_a_difference():
    random = np.random.default_rng(0)
    false_alarms = sum(drift_of(tuple(with_reload_effect(random)), FIVE_SITTINGS) is not None for _ in range(200))
    assert false_alarms <= 4
    warming = np.repeat(np.linspace(10, 13, 5), 8) + 0.1 * random.standard_normal(40)
    assert drift_of(tuple(warming), FIVE_SITTINGS).startswith("slower by 2")
    assert drift_of(tuple(warming[::-1]), FIVE_SITTINGS).startswith("faster by 2")


def test_outliers_are_counted():
    assert num_outliers((*[10.0, 10.1, 9.9] * 10, 50.0, 60.0)) == 2


def test_a_judged_timing_carries_its_conditions():
    conditions = Conditions("1", {"OMP_NUM_THREADS": "1"}, (1,))
    found = summarize(readings([1.0, 1.1, 0.9] * 10), resolve(Target("null", batch=4)), "abc", conditions)
    assert (found.median_ms, found.batch, found.runtime, found.cores) == (1.0, 4, "null", (1,))
    assert found.environment == {"OMP_NUM_THREADS": "1"}
    assert found.date.endswith("Z")


def test_a_judged_timing_counts_its_sessions_and_carries_its_memory():
    taken = readings([1.0, 1.1, 0.9, 1.0] * 5, sessions=tuple(i // 4 for i in range(20)))
    found = summarize(taken, resolve(Target("null")), "abc", Conditions("1", {}, None), peak_memory_bytes=2**20)
    assert (found.sittings, found.peak_memory_bytes, found.device_state) == (5, 2**20, {})


CONDITIONS = {
    *("runtime", "runtime_version", "device", "device_name", "precision", "batch", "threads", "environment", "cores"),
    *("clock_state", "device_state", "warmup", "runs", "sittings", "median_ms", "p5_ms", "p95_ms", "p99_ms"),
    *("ci_low_ms", "ci_high_ms", "between_runs", "repeats", "cpu_wall_ratio", "load_average", "busy_neighbours"),
    *("contended", "contention", "drift", "outliers", "peak_memory_bytes", "graph_hash", "date"),
    *("energy_mj_per_image", "energy_plus_minus_mj", "energy_note"),
}


@pytest.mark.promise(31)
def test_no_number_is_without_its_conditions():
    """Every condition is a field, in JSON too; only what older timings lack may be left out when one is made."""
    assert set(Timing.model_fields) == CONDITIONS == set(timing().as_json())
    optional = {name for name, field in Timing.model_fields.items() if not field.is_required()}
    energy = {"energy_mj_per_image", "energy_plus_minus_mj", "energy_note"}
    assert optional == {"sittings", "between_runs", "repeats", "peak_memory_bytes", "device_state", *energy}


@pytest.mark.parametrize("value", ["onnxruntime", {"runtime": "onnxruntime"}, {}, Target()], ids=str)
def test_a_target_is_a_name_or_a_mapping(value):
    assert Target.parse(value) == Target(runtime="onnxruntime", device="cpu", precision="fp32", batch=1, threads=1)


def test_a_misspelt_runtime_is_answered_with_the_right_one():
    with pytest.raises(SpecError, match="onnxrutime") as caught:
        Target.parse("onnxrutime")
    assert caught.value.problems[0].hint == "did you mean `onnxruntime`?"
    assert str(caught.value).startswith("target:1:1: ")


def test_all_problems_of_a_target_are_told_at_once_and_in_their_places():
    def locate(field):
        return Place("space.yaml", line=10 + len(field))

    with pytest.raises(SpecError, match=r"space\.yaml") as caught:
        Target.parse({"runtime": "onnxruntime", "batch": 0, "threads": True, "precison": "fp16"}, locate)
    assert [problem.rule for problem in caught.value.problems] == ["unknown-key", "out-of-range", "wrong-type"]
    assert caught.value.problems[1].place.line == 15
    assert caught.value.problems[0].hint == "did you mean `precision`?"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (3, "wrong-type"),
        ({"runtime": 3}, "unknown-name"),
        ({"runtime": ["torch"]}, "unknown-name"),
        ({"precision": "int3"}, "unknown-name"),
        ({"device": "toaster"}, "unknown-name"),
        ({"batch": 2**40}, "out-of-range"),
        ({"batch": 1.5}, "wrong-type"),
        ({3: 4}, "unknown-key"),
    ],
    ids=str,
)
def test_a_wrong_target_is_an_error_of_the_user(value, rule):
    with pytest.raises(SpecError, match="target:1:1") as caught:
        Target.parse(value)
    assert caught.value.problems[0].rule == rule
    assert caught.value.exit_code == 1


def test_a_fingerprint_tells_targets_apart():
    targets = [
        Target(),
        Target(batch=8),
        Target(threads=2),
        Target("torch"),
        Target("null"),
        Target("null", precision="fp16"),
    ]
    assert len({resolve(target).fingerprint for target in targets}) == len(targets)
    assert resolve(Target()).fingerprint == resolve(Target()).fingerprint


def test_an_artefact_survives_json(tmp_path):
    artefact = Artefact(
        "onnx", "abc", (3, 32, 32), path=tmp_path / "m.onnx", macs=5, outputs=(OutputShape("logits", (10,)),)
    )
    assert Artefact.from_json(artefact.as_json()) == artefact


def test_an_artefact_promises_the_whole_shape_of_a_map(tmp_path):
    graph = Graph()
    graph.output("map", graph.add(Activation("relu"), graph.input("x", TensorType((3, 8, 4))), path="act"))
    made = artefact_of_graph(graph, Target("null", batch=2), tmp_path, key="k", name="a map", build="segment")
    assert made.outputs == (OutputShape("map", (3, 8, 4)),)
    (answer,) = runtime("null").load(made, RunConfig(batch=2)).outputs(np.zeros((2, 3, 8, 4)))
    assert answer.shape == (2, 3, 8, 4)


@pytest.mark.parametrize(
    "fields",
    [{"kind": "onnx"}, {"kind": "spec"}, {"kind": "null", "graph_hash": ""}, {"kind": "null", "input_shape": (3, 0)}],
    ids=str,
)
def test_an_artefact_with_a_hole_is_refused(fields):
    with pytest.raises(ValueError, match=r"needs|sizes"):
        Artefact(**{"graph_hash": "abc", "input_shape": (3,), **fields})


def test_few_sessions_widen_the_interval_by_students_t_of_one_less_than_their_number():
    values = [10.0] * 9 + [11.0] * 9 + [12.0] * 9
    found = median_interval(values, sessions=[0] * 9 + [1] * 9 + [2] * 9)
    reach = 4.302653 / 3**0.5  # t(0.975) with 2 degrees of freedom; the medians 10, 11, 12 have a deviation of 1
    assert (found.low, found.high) == (pytest.approx(11 - reach, abs=1e-4), pytest.approx(11 + reach, abs=1e-4))


def test_two_sessions_are_enough_for_a_median_of_each() -> None:
    assert part_medians([1.0, 3.0, 2.0, 10.0, 30.0, 20.0], [0, 0, 0, 1, 1, 1]) == [2.0, 20.0]
    one = [float(number) for number in range(16)]
    assert part_medians(one, [0] * 16) == part_medians(one), "one session is cut into stretches"
