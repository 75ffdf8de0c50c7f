"""Dominance, noise and area, against brute force and Optuna's own numbers."""

from __future__ import annotations

from typing import Any

import pytest
from fake_study import fake_accuracy, fake_timing
from hypothesis import given
from hypothesis import strategies as st

from archdsl.study.front.pareto import front_of, has_gained
from archdsl.study.hypervolume import costs, non_dominated
from archdsl.study.objectives import OBJECTIVES, Objective
from archdsl.study.record import Record

BOTH = (OBJECTIVES["accuracy"], OBJECTIVES["latency"])
COSTS = (OBJECTIVES["params"], OBJECTIVES["latency"])


def record(number: int, reached: float, latency: float, /, *, noise_ms: float = 0.0, **more: Any) -> Record:
    """A complete trial; its accuracy is of so many images that it has hardly any noise unless `more` says so."""
    fields: dict[str, Any] = {
        "state": "complete",
        "assignment": {},
        "hash": f"h{number}",
        "name": f"n{number}",
        "values": (reached, latency),
        "timing": fake_timing(latency, noise_ms),
        "accuracy": fake_accuracy(reached, num_val=10**9),
    }
    return Record(number=number, **{**fields, **more})


def numbers(points: Any) -> list[int]:
    return [point.record.number for point in points]


def test_the_front_is_what_nothing_dominates_best_accuracy_first() -> None:
    records = [record(0, 0.5, 1.0), record(1, 0.9, 3.0), record(2, 0.8, 4.0), record(3, 0.7, 2.0), record(4, 0.7, 2.5)]
    front = front_of(records, BOTH)
    assert numbers(front.members) == [1, 3, 0]
    assert numbers(front.others) == [2, 4]
    assert numbers(front.contenders) == []


def test_only_complete_networks_count_and_each_once() -> None:
    records = [
        record(0, 0.5, 1.0),
        record(1, 0.9, 0.5, state="infeasible"),
        record(2, 0.9, 0.5, state="failed", values=None),
        record(3, 0.5, 1.0, hash="h0", duplicate_of=0),
        record(4, 0.9, 0.5, state="open", values=None),
    ]
    assert numbers(front_of(records, BOTH).members) == [0]


def test_equal_networks_both_stay() -> None:
    front = front_of([record(0, 0.5, 1.0), record(1, 0.5, 1.0)], BOTH)
    assert numbers(front.members) == [0, 1]
    assert [member.tied_with for member in front.members] == [(1,), (0,)]


def test_an_empty_study_has_an_empty_front() -> None:
    assert front_of([], BOTH).members == ()


def test_points_that_noise_cannot_separate_are_marked() -> None:
    records = [
        record(0, 0.9, 2.0, noise_ms=0.3),
        record(1, 0.8999, 1.9, noise_ms=0.3, accuracy=fake_accuracy(0.8999, num_val=1000)),
        record(2, 0.5, 1.0, noise_ms=0.1),
    ]
    front = front_of(records, BOTH)
    assert {m.record.number: m.tied_with for m in front.members} == {0: (1,), 1: (0,), 2: ()}


def test_a_network_that_is_beaten_within_noise_is_a_contender() -> None:
    records = [record(0, 0.9, 2.0, noise_ms=0.3), record(1, 0.9, 2.1, noise_ms=0.3), record(2, 0.9, 5.0)]
    front = front_of(records, BOTH)
    assert numbers(front.members) == [0]
    assert numbers(front.contenders) == [1]
    assert numbers(front.others) == [2]


def test_counts_have_no_noise() -> None:
    point = front_of([record(0, 100, 1.0)], COSTS).members[0].point
    assert point.intervals[0] == (100, 100)


def test_an_accuracy_interval_is_two_standard_errors_within_0_and_1() -> None:
    accuracy = fake_accuracy(0.99, num_val=100)
    low, high = front_of([record(0, 0.99, 1.0, accuracy=accuracy)], BOTH).members[0].point.intervals[0]
    assert low == pytest.approx(0.99 - 2 * accuracy.standard_error)
    assert high == 1.0


values = st.floats(0, 1, allow_nan=False)


@given(st.lists(st.tuples(values, values), max_size=12))
def test_the_front_agrees_with_brute_force(points: list[tuple[float, float]]) -> None:
    records = [record(number, a, b) for number, (a, b) in enumerate(points)]
    expected = {
        i for i, (a, b) in enumerate(points) if not any(x >= a and y <= b and (x > a or y < b) for x, y in points)
    }
    front = front_of(records, BOTH)
    assert set(numbers(front.members)) == expected
    assert len(front.members) + len(front.contenders) + len(front.others) == len(points)


def dominates(a: tuple[float, ...], b: tuple[float, ...], objectives: tuple[Objective, ...]) -> bool:
    return non_dominated([costs(a, objectives), costs(b, objectives)]).tolist() == [True, False]


def test_directions_decide_what_dominates() -> None:
    assert dominates((0.9, 1.0), (0.8, 1.0), BOTH)
    assert not dominates((0.9, 1.0), (0.9, 1.0), BOTH)
    assert not dominates((0.9, 2.0), (0.8, 1.0), BOTH)
    assert dominates((1, 1.0), (2, 1.0), COSTS)


def test_a_network_that_is_better_beyond_noise_is_a_gain() -> None:
    before = [record(0, 0.5, 2.0), record(1, 0.6, 3.0)]
    assert has_gained([*before, record(2, 0.7, 3.5), record(3, 0.1, 9.0)], BOTH, 2)
    assert not has_gained([*before, record(2, 0.7, 3.5), record(3, 0.1, 9.0)], BOTH, 1)


def test_a_network_that_is_better_within_noise_is_no_gain() -> None:
    before = [record(0, 0.5, 2.0, noise_ms=0.2)]
    assert not has_gained([*before, record(1, 0.5, 1.9, noise_ms=0.2)], BOTH, 1)
    assert has_gained([*before, record(1, 0.5, 1.5, noise_ms=0.2)], BOTH, 1)


def test_what_failed_or_cost_nothing_is_no_gain() -> None:
    failed = record(1, 0.9, 1.0, state="failed", values=None)
    assert not has_gained([record(0, 0.5, 2.0), failed], BOTH, 1)
    assert not has_gained([record(0, 0.5, 2.0), failed, record(2, 0.9, 1.0, cheap=True)], BOTH, 1)


def test_before_there_is_anything_to_compare_with_everything_is_a_gain() -> None:
    assert has_gained([], BOTH, 1)
    assert has_gained([record(0, 0.5, 2.0, state="failed", values=None)], BOTH, 1)


def test_a_record_is_stored_under_the_keys_of_earlier_studies() -> None:
    kept = record(0, 0.5, 1.0, assignment={"stem.dim": 1}).as_json()
    assert kept["picks"] == {"stem.dim": 1} and "assignment" not in kept
