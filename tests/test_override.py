"""Overrides from the command line and from Python."""

from __future__ import annotations

import pytest
from toy_parts import SPEC, toys  # noqa: F401

from archdsl.errors import SpecError
from archdsl.language import loads
from archdsl.language.text import limits

pytestmark = pytest.mark.usefixtures("toys")


def test_a_word_sets_a_value_by_its_path():
    spec = loads(SPEC, set=["stages.0.depth=4", "head.classes=7"], check=False)
    assert spec.stages[0].depth == 4
    assert spec.head.classes == 7


def test_a_mapping_does_the_same_in_python():
    words = loads(SPEC, set=["stages.0.depth=4", "stages[1].window=[7, 7]"], check=False)
    assert loads(SPEC, set={"stages.0.depth": 4, "stages[1].window": (7, 7)}, check=False) == words


def test_a_star_reaches_every_entry_of_a_list():
    spec = loads(SPEC.replace("  - {blocks", "#"), set=["stages.*.window=5"], check=False)
    assert {block.window for stage in spec.stages for block in stage.blocks} == {5}


def test_the_value_is_yaml():
    spec = loads(
        SPEC, set=["stages.0.window=[7, map]", "stages.0.shift=false", "head={type: labels, classes: 3}"], check=False
    )
    assert [block.window for block in spec.stages[0].blocks] == [7, "map"]
    assert spec.head.classes == 3
    assert loads(SPEC, set=["source="], check=False).source is None


def test_text_from_python_stays_text():
    with pytest.raises(SpecError, match=r"^set:1:16: `depth` must be a whole number, but got `\"3\"`"):
        loads(SPEC, set={"stages.0.depth": "3"}, check=False)


def test_mappings_on_the_way_are_made():
    bare = SPEC.replace("input: {size: 224, channels: 3}\n", "")
    assert loads(bare, set=["input.size=96"], check=False).input.size == (96, 96)


def test_a_bare_part_name_gains_fields():
    spec = loads(SPEC, set=["stages.1.downsample.norm=none"], check=False)
    assert spec.stages[1].downsample.norm == "none"


def test_a_changed_network_is_no_longer_what_expect_describes():
    assert loads(SPEC, set=["stages.0.depth=4"], check=False).expect is None
    assert loads(SPEC, set=["name=other"], check=False).expect is not None
    assert loads(SPEC, set=["stages.0.depth=4", "expect={params: 3}"], check=False).expect.params == 3


def test_later_overrides_win_and_build_on_earlier_ones():
    assert loads(SPEC, set=["stages.0.depth=4", "stages.0.depth=6"], check=False).stages[0].depth == 6


WRONG = [
    ("stages.0.windw=7", "1:10", "unknown-key", "did you mean `window`?"),
    ("stagse.0.depth=7", "1:1", "unknown-key", "did you mean `stages`?"),
    ("stages.7.depth=7", "1:8", "unknown-key", "entries 0 to 2"),
    ("stages.first.depth=7", "1:8", "unknown-key", "is a list"),
    ("stages.0.depth.x=7", "1:16", "unknown-key", "has nothing called"),
    ("stages.0.depth=seven", "1:16", "wrong-type", "a whole number"),
    ("stages.0.window=[7, 1.5]", "1:21", "wrong-type", "a whole number"),
    ("stages.0.window=[7]", "1:17", "length", "depth is 2"),
    ("head.*=7", "1:6", "unknown-key", "is a mapping"),
    ("head.pool=mean", "1:11", "wrong-value", "one of `avg`, `token`"),
    ("head={type: lables}", "1:13", "unknown-name", "did you mean `labels`?"),
    ("head={type: labels", "1:6", "syntax", "never closed"),
    ("stages.0.depth=1: 2: 3", "1:20", "syntax", "mapping values"),
    ("stages..depth=7", "1:8", "wrong-value", "empty part"),
    (".=7", "1:1", "wrong-value", "empty part"),
    ("stages.0.depth", "1:1", "syntax", "path=value"),
    ("=7", "1:1", "syntax", "path=value"),
    ("", "1:1", "syntax", "path=value"),
    ("extends=base", "1:1", "extends", "only be set in a file"),
    ("a" * 2000 + "=7", "1:1", "limit", "1000 characters"),
    (".".join("a" * 40) + "=7", "1:65", "limit", "32 parts"),
    ("head.pool=" + "[" * 100, "1:75", "limit", "nested deeper"),
    ("stages.0.depth=!!x 7", "1:16", "tag", "tags"),
    ("head.classes=\ud800", "1:14", "syntax", "U+D800"),
    ("head.classes=99999999999999999999999", "1:14", "limit", "64 bits"),
    ("stages.99999999999999999999.depth=1", "1:8", "unknown-key", "no entry"),
]


@pytest.mark.parametrize(("word", "place", "rule", "text"), WRONG)
def test_the_wrong_word_is_pointed_at(word, place, rule, text):
    with pytest.raises(SpecError) as caught:
        loads(SPEC, set=[word], check=False)
    problem = caught.value.problems[0]
    assert str(problem.place) == f"--set:{place}"
    assert problem.rule == rule
    assert text in str(caught.value)


def test_the_line_is_the_number_of_the_override_and_all_are_told():
    with pytest.raises(SpecError) as caught:
        loads(SPEC, set=["head.classes=3", "head.clases=4", "stem.dim=wide"], check=False)
    assert [str(problem.place) for problem in caught.value.problems] == ["--set:2:6", "--set:3:10"]
    assert caught.value.problems[0].place.text == "head.clases=4"


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, LOOP, "\ud800", 2**70, b"x", {"a": {1, 2}}, "x" * (limits.MAX_SCALAR_CHARS + 1), 1j]
)
def test_a_python_value_that_is_no_yaml_is_a_clean_error(value):
    with pytest.raises(SpecError, match=r"^set:1:\d+: "):
        loads(SPEC, set={"head.classes": value}, check=False)


@pytest.mark.parametrize("key", ["", ".", 7, "a..b", "\ud800", None])
def test_a_python_path_that_is_no_path_is_a_clean_error(key):
    with pytest.raises(SpecError, match=r"^set:1:\d+: "):
        loads(SPEC, set={key: 1}, check=False)


def test_an_empty_value_points_behind_its_equals_sign():
    with pytest.raises(SpecError, match=r"^--set:1:15: `depth` must be a whole number, but got `null`"):
        loads(SPEC, set=["stages.0.depth="], check=False)
