"""A valid spec: what each way of writing means."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from json_schema import valid_by_schema
from toy_parts import SPEC, Fold, Plain, Weave, toys  # noqa: F401

from archdsl.errors import SpecError
from archdsl.language import loads
from archdsl.language.space.schema import schema
from archdsl.language.text import limits
from archdsl.language.text.limits import refuse_giant
from archdsl.language.text.quantities import count_text, number_text, read_count, read_duration

pytestmark = pytest.mark.usefixtures("toys")


def read(text: str, **overrides: Any):
    return loads(text, "f.yaml", set=overrides or None, check=False)


def with_stage(stage: str) -> str:
    return f"name: x\nstem: {{type: tiles, dim: 8}}\nstages:\n  - {stage}\nhead: labels\n"


def test_a_scalar_is_for_all_blocks_and_a_list_for_each():
    blocks = read(with_stage("{block: weave, depth: 3, heads: 2, window: [1, 2, 3]}")).stages[0].blocks
    assert [block.window for block in blocks] == [1, 2, 3]
    assert [block.heads for block in blocks] == [2, 2, 2]


def test_a_block_says_itself_what_a_scalar_means_for_each():
    blocks = read(with_stage("{block: weave, depth: 4, heads: 2, shift: true}")).stages[0].blocks
    assert [block.shift for block in blocks] == [False, True, False, True]


def test_in_a_list_of_blocks_a_scalar_is_that_blocks_own():
    blocks = read(with_stage("{blocks: [{block: weave, heads: 2, shift: true}, {block: plain}]}")).stages[0].blocks
    assert blocks == (Weave(heads=2, shift=True, drop_path=0.0), Plain())


def test_a_field_that_is_itself_a_list_is_not_taken_for_one_value_each():
    stage = "{block: weave, depth: 2, heads: 2, kernel: [3, 5]}"
    assert [block.kernel for block in read(with_stage(stage)).stages[0].blocks] == [(3, 5), (3, 5)]
    stage = "{block: weave, depth: 2, heads: 2, kernel: [[3, 5], [7, 9]]}"
    assert [block.kernel for block in read(with_stage(stage)).stages[0].blocks] == [(3, 5), (7, 9)]


def test_defaults_fill_what_is_not_set():
    text = with_stage("{block: weave, depth: 1, heads: 2, downsample: fold}") + "defaults: {norm: none, act: relu}\n"
    spec = read(text)
    assert (spec.stages[0].blocks[0].norm, spec.stages[0].blocks[0].act) == ("none", "relu")
    assert spec.stem.norm == "none"
    assert spec.stages[0].downsample == Fold(norm="none")
    assert read(text.replace("heads: 2", "heads: 2, norm: batch")).stages[0].blocks[0].norm == "batch"


def test_defaults_may_give_a_field_that_is_required():
    text = with_stage("{block: weave, depth: 1}") + "defaults: {heads: 4}\n"
    assert read(text).stages[0].blocks[0].heads == 4


def test_drop_path_rises_linearly_over_all_blocks_unless_a_block_says_its_own():
    spec = read(SPEC)
    rates = [getattr(block, "drop_path", None) for stage in spec.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.06, 0.12, 0.18, 0.24, None])
    own = read(SPEC, **{"stages.0.drop_path": [0.5, None]})
    assert [block.drop_path for block in own.stages[0].blocks] == pytest.approx([0.5, 0.06])


def test_one_block_alone_has_no_drop_path():
    assert (
        read("drop_path: 0.5\n" + with_stage("{block: weave, depth: 1, heads: 2}")).stages[0].blocks[0].drop_path == 0
    )


def test_an_image_size_is_one_number_or_two():
    assert read(SPEC).input.size == (224, 224)
    assert read(SPEC, **{"input.size": [96, 64]}).input.size == (96, 64)


def test_counts_are_written_as_people_write_them():
    spec = read(SPEC)
    assert (spec.expect.params, spec.expect.macs) == (28_288_354, 4_500_000_000)


@pytest.mark.parametrize(
    ("text", "count"),
    [("100M", 100_000_000), ("4.5G", 4_500_000_000), ("28_288_354", 28_288_354), ("1k", 1000), ("1 K", 1000),
     ("2B", 2_000_000_000), ("1.5T", 1_500_000_000_000), (4.5e9, 4_500_000_000), (7, 7), ("0", 0)],
)  # fmt: skip
def test_a_count_reads(text, count):
    assert read_count(text) == count


@pytest.mark.parametrize(
    "text", ["1.5", "4.5 Q", "M", "", "-1M", "1e3M", True, None, [1], "1.23456k", "9" * 50, "٣M", 0.5]
)
def test_a_count_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"a count|a whole number|a number"):
        read_count(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("2.1 ms", 2.1), ("1.5s", 1500), ("300 us", 0.3), ("300µs", 0.3), ("2 min", 120_000), (3, 3.0), ("7", 7.0)],
)
def test_a_duration_reads(text, ms):
    assert read_duration(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["2 m", "fast", "-1 ms", "", True, None, "1_ms"])
def test_a_duration_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="a duration such as"):
        read_duration(text)


def test_a_file_without_a_name_is_called_after_itself(tmp_path):
    from archdsl.language import load

    (tmp_path / "little.yaml").write_text(with_stage("{block: weave, depth: 1, heads: 2}").replace("name: x\n", ""))
    assert load(tmp_path / "little.yaml", check=False).name == "little"


def test_the_same_spec_written_otherwise_is_equal():
    one = read(with_stage("{block: weave, depth: 2, heads: 2, window: 7}"))
    other = read(with_stage("{depth: 2, heads: [2, 2], window: &w 7, 'block': weave} # same"))
    assert one == other
    assert hash(one) == hash(other)
    assert one != read(with_stage("{block: weave, depth: 2, heads: 2, window: 8}"))


def test_what_is_dumped_loads_again():
    spec = read(SPEC)
    assert read(spec.to_yaml()) == spec
    assert read(spec.to_yaml()).to_yaml() == spec.to_yaml()
    assert "  - {block: weave, depth: 2, heads: 3, window: 7, shift: true}\n" in spec.to_yaml()
    assert "expect: {params: 28_288_354, macs: 4.5G}\n" in spec.to_yaml()


def test_a_spec_travels_between_processes():
    spec = read(SPEC)
    there = pickle.loads(pickle.dumps(spec))
    assert there == spec
    assert there.locate("stages.1") == spec.locate("stages.1")


@pytest.mark.parametrize(
    ("path", "line", "token"),
    [
        ("", 1, "name: toy"),
        ("stages.1.window", 10, "[7, 14]"),
        (("stages", 1, "blocks", 1, "window"), 10, "14]"),
        (("stages", 1, "blocks", 0, "heads"), 10, "6, 8]"),
        (("stages", 0, "blocks", 1, "window"), 9, "7, shift"),
        (("stages", 0, "blocks", 1, "norm"), 6, "layer, act"),
        (("stages", 0, "blocks", 1, "mlp_ratio"), 9, "{block: weave"),
        (("stages", 0, "blocks", 1), 9, "{block: weave"),
        (("stages", 1, "downsample", "norm"), 6, "layer, act"),
        (("stages", 1, "downsample", "other"), 10, "fold, dim"),
        (("stages", 2, "downsample", "norm"), 11, "none}}"),
        (("stages", 2, "blocks", 1, "size"), 11, "5}]"),
        (("stages", 2, "blocks", 1, "attn", "qkv"), 11, "{block: plain"),
        (("stem", "norm"), 6, "layer, act"),
        (("stem", "tile"), 7, "4, dim"),
        (("head", "nothing", "below"), 12, "{type: labels"),
        (("nowhere",), 1, "name"),
        (("stages", 9, "depth"), 9, "- {block"),
        ("input.size", 4, "224"),
    ],
)
def test_any_path_can_be_located(path, line, token):
    place = read(SPEC).locate(path)
    assert (place.file, place.line) == ("f.yaml", line)
    assert place.text is not None
    assert place.text[place.column - 1 :].startswith(token)


def test_a_giant_is_refused_by_name():
    spec = read(SPEC)
    refuse_giant(spec, params=limits.MAX_PARAMS, macs=limits.MAX_MACS, activation_bytes=limits.MAX_ACTIVATION_BYTES)
    with pytest.raises(SpecError, match=r"^f.yaml:9:5: .*2_000_000_000 parameters, but this one has 3_000_000_000"):
        refuse_giant(spec, params=3_000_000_000, path=("stages", 0))


@pytest.mark.parametrize(
    ("setting", "most"),
    [("input={size: {}}", 8192), ("input={size: [32, {}]}", 8192), ("input={size: 32, channels: {}}", 4096),
     ("head={type: labels, classes: {}}", 10_000_000), ("stages.0.dim={}", 65_536)],
)  # fmt: skip
def test_sizes_have_limits_that_hold_at_their_boundary(setting: str, most: int) -> None:
    loads(SPEC, set=[setting.replace("{}", str(most))], check=False)
    with pytest.raises(SpecError, match=f"at most {most:_}|between 1 and {most:_}|{most}"):
        loads(SPEC, set=[setting.replace("{}", str(most + 1))], check=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (999, "999"), (1000, "1.00k"), (-28_288_354, "-28.29M"), (4e9, "4.00G")],
)
def test_a_count_has_two_digits_behind_the_point(value: float | None, text: str) -> None:
    assert count_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.1235"), (9_999, "9999"), (10_000, "10.00k"), (-10_000, "-10.00k")]
)
def test_a_number_has_four_digits(value: float, text: str) -> None:
    assert number_text(value) == text


# --- JSON Schema --------------------------------------------------------------------------------------------------

SAMPLES = [
    SPEC,
    with_stage("{blocks: [{block: plain}, {block: weave, heads: 2, kernel: [3, 3]}], dim: 16, downsample: halve}"),
    "name: y\nextends: base\ninput: {size: [96, 64]}\n"
    "stages: [{}, {depth: 3, window: [1, 2, 3]}, {downsample: {norm: none}}]\n"
    "head: {classes: 7}\nexpect: {params: 28.3M}\n",
]
NOT = [
    SPEC.replace("heads: 3", "head: 3"),
    SPEC.replace("depth: 2", "depth: two"),
    SPEC.replace("type: labels", "type: label"),
    SPEC.replace("pool: avg", "pool: mean"),
    SPEC.replace("4.5G", "4.5 Q"),
    SPEC.replace("stem:", "stme:"),
    SPEC.replace("window: [7, 14]", "window: [7, x]"),
    SPEC.replace("norm: layer", "norm: lyer"),
]


@pytest.mark.parametrize("text", SAMPLES)
def test_what_is_valid_yaml_is_valid_by_the_schema(text):
    from archdsl.language.text.yaml_text import parse

    assert valid_by_schema(parse(text, "f").plain(), schema("spec"))


@pytest.mark.parametrize("text", NOT)
def test_what_is_wrong_is_wrong_by_the_schema(text):
    from archdsl.language.text.yaml_text import parse

    assert not valid_by_schema(parse(text, "f").plain(), schema("spec"))


def test_every_reference_of_the_schema_leads_somewhere():
    whole = schema("spec")

    def references(part: Any):
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for item in part.values():
                yield from references(item)
        elif isinstance(part, list):
            for item in part:
                yield from references(item)

    found = set(references(whole))
    assert found
    assert {name.removeprefix("#/definitions/") for name in found} <= set(whole["definitions"])


def test_the_built_in_parts_have_a_schema_too(monkeypatch):
    monkeypatch.undo()
    whole = schema("spec")
    assert any(name.startswith("block.") for name in whole["definitions"])
