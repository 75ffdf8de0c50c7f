"""The options of a search are its keywords."""

from __future__ import annotations

from typing import Any

import pytest
from fake_study import SPACE

import archdsl
from archdsl.errors import SpecError
from archdsl.language import loads, loads_space
from archdsl.language.space.objectives import MEASURED
from archdsl.runs.search import SearchKeywords, SearchOptions
from archdsl.study.config import differences


def test_every_option_is_a_keyword_of_the_same_type() -> None:
    assert list(SearchKeywords.__annotations__) == list(SearchOptions.__annotations__)
    for name, kind in SearchKeywords.__annotations__.items():
        assert getattr(kind, "__forward_arg__", kind) == SearchOptions.__annotations__[name]


def test_an_unknown_keyword_is_refused() -> None:
    wrong: dict[str, Any] = {"trails": 3}
    with pytest.raises(TypeError, match="trails"):
        archdsl.search("quickstart", **wrong)


def test_a_difference_is_cut_where_a_line_would_become_too_long() -> None:
    fits, too_long = "x" * 78, "x" * 79
    assert differences({"a": fits}, {"a": 1}) == [f'a: "{fits}" -> 1']
    assert differences({"a": too_long}, {}) == [f'a: "{too_long[:78]}… -> (nothing)']


def test_a_network_is_trained_once_where_no_number_of_seeds_is_given() -> None:
    space = loads_space(SPACE)
    assert space.objectives.accuracy is not None
    assert space.objectives.accuracy.train.seeds == 1


def test_an_empty_target_is_that_of_the_latency_for_what_is_measured_beside_it_alone() -> None:
    two = "latency: [{runtime: onnxruntime}, {runtime: openvino}]\n  peak_memory: {}\n  throughput: {runtime: openvino}"
    objectives = loads_space(SPACE.replace('latency: {runtime: "null"}', two)).objectives
    labels = {kind: [target.label for target in objectives.targets_of(kind)] for kind in MEASURED}
    assert labels == {
        "latency": ["onnxruntime", "openvino"], "peak_memory": ["onnxruntime", "openvino"],
        "throughput": ["openvino"], "energy": [],
    }  # fmt: skip
    alone = loads_space(SPACE.replace('latency: {runtime: "null"}', "latency: {}")).objectives
    assert [target.runtime for target in alone.targets_of("latency")] == ["onnxruntime"]
    (own,) = loads_space(SPACE.replace('latency: {runtime: "null"}', "throughput: {}")).objectives.targets_of(
        "throughput"
    )
    assert own.runtime == "onnxruntime", "without a latency, the target that is meant when nothing is said"


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("stages.0.heads='3'", "leave the quotes out"),
        ("stages.0.heads=many", None),
        ("stages.0.shift='yes'", "write true"),
        ("stages.0.shift='3'", None),
    ],
)
def test_quotes_are_named_where_they_are_all_that_is_wrong(setting: str, hint: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        loads("{name: x, extends: micro_swin}", set=[setting])
    (problem,) = caught.value.problems
    assert (problem.hint or "").startswith(hint or "") and bool(problem.hint) == bool(hint)
