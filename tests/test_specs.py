"""Every spec that ships: it loads, says where it comes from, and comes to what other people's code comes to."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.language.architecture.load import load, shipped_specs
from archdsl.language.architecture.lower import lower
from archdsl.language.text.yaml_text import parse

DATA = Path(__file__).parent / "data"
NAMES = [path.stem for path in shipped_specs()]

SAME_NETWORK = [
    {"swin_b", "swin_b_shift_1111"},
    {"swin_b_shift_0011", "swin_b_shift_0010"},  # stage 4 is one window: its shift does nothing
    {"swin_b_shift_0001", "swin_b_shift_0000", "swin_b_windows_7_7_7_7"},
    {"swin_free_b", "swin_b_windows_7_14_14_7"},
    {"resnet_50", "roadmap_00"},  # where the roadmap begins
]


def rows(file: str) -> list[dict[str, str]]:
    lines = (DATA / file).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


REFERENCES = rows("reference_counts.csv")
AS_IS = [row for row in REFERENCES if "official code as is" in row["name"]]
COUNTED = [row for row in REFERENCES if row not in AS_IS]
"""Where a row says so, it counts tensors that are never learnt too (T2T-ViT's positions and random features)."""
TABLE_6 = rows("swin_free_table6.csv")


def loaded(row: dict[str, str], **more: Any):
    pairs = (pair.split("=") for pair in row["set"].split())
    return load(row["spec"], set={**{path: int(value) for path, value in pairs}, **more})


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_spec_comes_to_what_it_says(name: str):
    spec = load(name)
    assert spec.name == name
    assert spec.source
    assert spec.expect is not None
    cost = archdsl.cost(spec)
    assert (cost.params, cost.macs) == (spec.expect.params, spec.expect.macs)


@pytest.mark.parametrize("path", shipped_specs(), ids=lambda path: path.stem)
def test_a_shipped_spec_leads_editors_to_its_schema_and_says_its_own_source_and_counts(path: Path):
    first, *lines = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=../schemas/spec.json"
    for key in ("name: ", "source: ", "expect: "):
        assert any(line.startswith(key) for line in lines), key


def test_only_the_listed_specs_are_the_same_network():
    by_identity = defaultdict(set)
    for name in NAMES:
        by_identity[archdsl.identity(name)].add(name)
    same = [names for names in by_identity.values() if len(names) > 1]
    assert sorted(map(sorted, same)) == sorted(map(sorted, SAME_NETWORK))


def test_the_paper_s_models_and_cases_all_ship():
    assert {row["spec"] for row in TABLE_6} <= set(NAMES)
    assert sum(name.startswith("swin_b_shift_") for name in NAMES) == 8  # Table 4
    assert sum(name.startswith("swin_b_windows_") for name in NAMES) == 8  # Table 5


@pytest.mark.promise(12)
@pytest.mark.parametrize("row", COUNTED, ids=lambda row: f"{row['name']}-{row['library'].split()[0]}")
def test_counts_equal_the_reference(row: dict[str, str]):
    spec = loaded(row)
    cost, fixed = archdsl.cost(spec), 0
    if "incl. non-trainable" in row["name"]:
        fixed = sum(tensor.size for tensor in lower(spec).tensors().values() if not tensor.learnable)
        assert fixed > 0
    assert (cost.params + fixed, cost.macs) == (int(row["params"]), int(row["macs"]))


@pytest.mark.parametrize("row", AS_IS, ids=lambda row: row["name"])
def test_swin_frees_released_batch_norm_code_is_our_token_axis_and_modules_it_never_calls(row: dict[str, str]):
    merging = {"type": "patch_merging", "norm": "none"}
    spec = loaded(row, **{"defaults.norm_axis": "token", **{f"stages.{i}.downsample": merging for i in (1, 2, 3)}})
    cost = archdsl.cost(spec)
    assert cost.macs == int(row["macs"])
    widths = [spec.stem.dim * 2**i for i in range(3)]
    never_called = sum(2 * c * c + 8 * c for c in widths)  # in each merging: Linear(c, 2c) and LayerNorm(4c)
    assert cost.params + never_called == int(row["params"])


@pytest.mark.parametrize("row", TABLE_6, ids=lambda row: row["spec"])
def test_the_papers_own_counting_gives_its_table_6(row: dict[str, str]):
    cost = archdsl.cost(row["spec"])
    assert cost.onnx_tool_flops is not None
    assert f"{cost.onnx_tool_flops / 1e9:.1f}" == row["printed_gflops"]
    assert cost.onnx_tool_flops / 1e9 == pytest.approx(float(row["tool_gflops"]), abs=1e-4)
    assert cost.onnx_tool_params / 1e6 == pytest.approx(float(row["tool_mparams"]), abs=0.06)


@pytest.mark.parametrize("path", shipped_specs(), ids=lambda path: path.stem)
def test_a_variant_says_only_what_differs(path: Path):
    own = parse(path.read_text(), path.name).plain()
    if "extends" in own:
        base = load(own["extends"]).data
        assert repeated({key: own[key] for key in own if key not in ("source", "expect")}, base) == []


def repeated(own: Any, base: Any, path: str = "") -> list[str]:
    """The paths at which `own` says what `base` says already. Lists merge item by item where those are mappings."""
    if isinstance(own, dict) and isinstance(base, dict):
        pairs = [(key, own[key], base[key]) for key in own if key in base]
    elif isinstance(own, list) and all(isinstance(item, dict) for item in own) and isinstance(base, list):
        pairs = list(zip(range(len(own)), own, base, strict=False))
    else:
        return [path] if own == base else []
    return [found for key, mine, other in pairs for found in repeated(mine, other, f"{path}.{key}")]


def test_repeated_finds_what_is_said_twice():
    assert repeated({"a": [{}, {"b": 1, "c": 2}], "d": 3}, {"a": [{"b": 1}, {"b": 1, "c": 3}], "d": 3}) == [
        ".a.1.b",
        ".d",
    ]
