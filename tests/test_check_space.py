"""`check` of a space: all that a search would stumble over, at once, each at its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_image_folder import write_images

from archdsl.cli.main import run

GOOD = """\
name: mine
base: micro_swin
choices: {stages.0.window: [2, 4]}
constraints: {params: {max: 1M}}
objectives:
  accuracy: {train: {data: synthetic, recipe: quick}}
  latency: {runtime: onnxruntime}
search: {trials: 3, sampler: auto}
"""
MISTAKES = [  # what is written, what it becomes, rule, what is pointed at, hint
    ("sampler: auto", "sampler: ehvvi", "unknown-name", "ehvvi", "did you mean `ehvi`"),
    ("recipe: quick", "recipe: qick", "unknown-name", "qick", "did you mean `quick`"),
    ("recipe: quick", "recipe: ./none.yaml", "missing-file", "./none.yaml", None),
    ("data: synthetic", "data: imagefolder:/nowhere", "missing-folder", "imagefolder:/nowhere", "train/<class>"),
    ("data: synthetic", "data: {type: imagefolder}", "missing-key", "{", None),
    ("runtime: onnxruntime", "runtime: tensorrt", None, "{runtime: tensorrt", "onnxruntime"),
    ("runtime: onnxruntime", "runtime: onnxruntim", "unknown-name", "onnxruntim", "did you mean `onnxruntime`"),
    ("{max: 1M}", "{max: 1k}", "infeasible", "{max: 1k}", "widen"),
    ("constraints: {params: {max: 1M}}", "constraints: {macs: {min: 10G}}", "infeasible", "{min: 10G}", "widen"),
    ("{trials: 3,", "{trials: 3, early_stopping: {first: 9},", "out-of-range", "9", "look earlier"),
    ("latency: {runtime", "peak_memory: {}\n  latency: {batch: 0, runtime", "out-of-range", "0", None),
    ("name: mine", "name: mine\nsource: 3", "wrong-type", "3", None),
]


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def problems(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    code = run(["check", str(path), "--json", *options])
    found = told(capsys)["errors"]
    assert code == (1 if found else 0)
    return found


def pointed_at(problem: dict[str, Any], text: str) -> str:
    return text.splitlines()[problem["line"] - 1][problem["column"] - 1 :]


@pytest.mark.parametrize(("old", "new", "rule", "place", "hint"), MISTAKES, ids=[m[1][:40] for m in MISTAKES])
def test_a_mistake_is_found_before_anything_runs(
    old: str, new: str, rule: str | None, place: str, hint: str | None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text = GOOD.replace(old, new)
    assert text != GOOD
    (tmp_path / "space.yaml").write_text(text)
    found = problems(tmp_path / "space.yaml", capsys)
    assert len(found) == 1, found
    assert found[0]["file"].endswith("space.yaml") and (rule is None or found[0]["rule"] == rule)
    assert pointed_at(found[0], text).startswith(place), (pointed_at(found[0], text), found)
    assert hint is None or hint in (found[0]["hint"] or ""), found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["space.yaml"], "nothing is left behind"


def test_all_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD
    for old, new, *_ in (MISTAKES[0], MISTAKES[1], MISTAKES[3], MISTAKES[5], MISTAKES[7]):
        text = text.replace(old, new)
    (tmp_path / "space.yaml").write_text(text)
    found = problems(tmp_path / "space.yaml", capsys)
    assert [(each["line"]) for each in found] == [4, 6, 6, 7, 8]
    assert problems(tmp_path / "space.yaml", capsys, "--text-only") == []


def test_data_of_other_channels_or_without_images_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "images", train=2, val=1)
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    for folder, rule in ((images, None), (tmp_path / "empty", "no-images")):
        (tmp_path / "space.yaml").write_text(GOOD.replace("data: synthetic", f"data: imagefolder:{folder}"))
        found = problems(tmp_path / "space.yaml", capsys)
        assert [each["rule"] for each in found] == ([rule] if rule else []), found


def test_constraints_that_exclude_one_another_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = "choices: {stem.dim: [16, 32]}\nconstraints: {params: {max: 60k}, macs: {min: 2M}}"
    text = re.sub(r"choices: .*\nconstraints: .*", both, GOOD)
    (tmp_path / "space.yaml").write_text(text)
    (found,) = problems(tmp_path / "space.yaml", capsys)
    assert "all constraints at once" in found["message"] and found["line"] == 4


def test_the_shipped_quickstart_is_fine_and_a_search_tells_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "quickstart"]) == 0
    capsys.readouterr()
    text = GOOD.replace("recipe: quick", "recipe: qick").replace("data: synthetic", "data: imagefolder:/nowhere")
    (tmp_path / "space.yaml").write_text(text)
    assert run(["search", str(tmp_path / "space.yaml"), "--out", str(tmp_path / "run"), "--json"]) == 1
    assert [each["rule"] for each in told(capsys)["errors"]] == ["missing-folder", "unknown-name"]
    assert not (tmp_path / "run").exists()
