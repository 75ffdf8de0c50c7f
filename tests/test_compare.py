"""`archdsl compare`: fronts of several searches, the joint front, and what keeps searches from being compared."""

from __future__ import annotations

import hashlib
import json
import random
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_front import BOTH, record

from archdsl.cli.main import run
from archdsl.errors import StudyError
from archdsl.runs.compare import compare, conditions_of
from archdsl.runs.search import search
from archdsl.study.front.joint import joint_front
from archdsl.study.front.pareto import Front, front_of
from archdsl.study.hypervolume import hypervolume
from archdsl.study.objectives import objective_named
from archdsl.study.view import StudyView

SPACE = """
name: cheap
base: micro_swin
choices:
  stages.*.depth: {range: [1, 6]}
  stages.*.mlp_ratio: [1, 2, 3, 4]
constraints: {params: {min: 200k}}
objectives: {latency: {runtime: "null"}, params: {}}
search: {trials: 8, sampler: random}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Searches a, b with another seed, `batch` on another target, and `macs` with another objective."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "space.yaml").write_text(SPACE)
    for name, options in {
        "a": {},
        "b": {"seed": 5},
        "batch": {"set": ["objectives.latency.batch=4"], "trials": 2},
        "macs": {"objectives": ["macs", "params"], "trials": 2},
    }.items():
        given: Any = {"trials": 8, **options}
        search(folder / "space.yaml", out=folder / name, **given)
    return folder


@pytest.fixture
def here(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(runs)
    return runs


def front(*points: tuple[float, float], noise_ms: float = 0.0) -> Front:
    return front_of([record(i, *values, noise_ms=noise_ms) for i, values in enumerate(points)], BOTH)


# --- the joint front ------------------------------------------------------------------------------------------------


def test_the_joint_front_is_what_no_network_of_any_front_dominates() -> None:
    one, other = front((0.9, 3.0), (0.7, 2.0)), front((0.8, 2.5), (0.6, 2.2), (0.5, 1.0))
    found = joint_front([one, other])
    assert [m.point.values for m in other.members] == [(0.8, 2.5), (0.6, 2.2), (0.5, 1.0)]
    assert found.standings == (("yes", "yes"), ("yes", "no", "yes"))
    assert found.num_members == 4


def test_what_only_noise_puts_behind_another_is_within_noise() -> None:
    found = joint_front([front((0.9, 3.0), noise_ms=0.2), front((0.9, 3.1), noise_ms=0.2)])
    assert found.standings == (("yes",), ("within noise",))


def test_a_network_that_two_searches_have_found_is_on_both() -> None:
    assert joint_front([front((0.9, 3.0)), front((0.9, 3.0))]).standings == (("yes",), ("yes",))


def test_hypervolumes_are_shares_of_the_joint_one() -> None:
    one, other = front((0.9, 3.0), (0.5, 1.0)), front((0.7, 2.0))
    reference = [-0.5 + 0.1 * 0.4, 3.0 + 0.1 * 2.0]
    volumes = [hypervolume(rows, reference) for rows in ([[-0.9, 3.0], [-0.5, 1.0]], [[-0.7, 2.0]])]
    total = hypervolume([[-0.9, 3.0], [-0.5, 1.0], [-0.7, 2.0]], reference)
    assert joint_front([one, other]).shares == pytest.approx([volume / total for volume in volumes])
    assert joint_front([one, front()]).shares == pytest.approx((1.0, 0.0))


def test_searches_without_a_network_have_no_joint_front() -> None:
    assert joint_front([front(), front()]).shares == (None, None)
    with pytest.raises(ValueError, match="different objectives"):
        joint_front([front(), front_of([], (BOTH[1],))])


def test_the_joint_front_agrees_with_the_front_of_all_networks() -> None:
    draw = random.Random(0)
    points = [(round(draw.random(), 2), round(1 + draw.random(), 2)) for _ in range(60)]
    fronts = [front(*points[:20]), front(*points[20:40]), front(*points[40:])]
    found = joint_front(fronts)
    best = {
        member.point.values
        for one, standings in zip(fronts, found.standings, strict=True)
        for member, standing in zip(one.members, standings, strict=True)
        if standing == "yes"
    }
    assert best == {member.point.values for member in front(*points).members}


# --- the command ----------------------------------------------------------------------------------------------------


def state_of(folder: Path) -> Mapping[str, tuple[int, str]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


def test_fronts_are_compared_and_nothing_is_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state_of(here)
    assert run(["compare", "a", "b/study.journal", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert run(["compare", "a", "b"]) == 0 and run(["compare", "a", "b", "--svg"]) == 0
    assert state_of(here) == before
    assert [one["label"] for one in found["searches"]] == ["a", "b/study.journal"]  # both studies are called `cheap`
    assert found["differing"] == {} and found["noted"] == {}
    standings = [row["on_joint_front"] for one in found["searches"] for row in one["front"]]
    assert found["joint_front"] == standings.count("yes") > 0
    assert all(0 <= one["hypervolume_share"] <= 1 for one in found["searches"])


def test_the_table_fits_80_columns(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archdsl.cli.output.WIDTH_OF_FILES", 80)
    assert run(["compare", "a", "b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for one in compare(["a", "b"]).searches:
        for row in one.opened.rows:
            assert any(row.name in line.split() and one.label in line.split() for line in lines)


@pytest.mark.parametrize(
    ("other", "column", "values"),
    [("batch", "latency target", "a: batch 1; batch: batch 4"), ("macs", "objectives", "a: latency, params; macs")],
)
def test_searches_that_cannot_be_compared_are_refused_with_what_differs(
    other: str, column: str, values: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", "a", other]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "[not-comparable]" in told.err
    assert f"because `{column}` differs: {values}" in told.err


def test_they_are_shown_beside_each_other_where_that_is_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", "a", "batch", "--separate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["joint_front"] is None and found["differing"] == {
        "latency target": {"a": "batch 1", "batch": "batch 4"}
    }
    assert all("on_joint_front" not in row for one in found["searches"] for row in one["front"])
    assert run(["compare", "a", "batch", "--separate"]) == 0
    shown = capsys.readouterr().out
    assert "these fronts cannot be compared" in shown and "batch 4" in shown and "joint front" not in shown
    assert run(["compare", "a", "batch", "--separate", "--svg"]) == 1


def test_the_picture_has_every_network_and_names_every_search(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "a", "b", "--svg"]) == 0
    root = ET.fromstring(capsys.readouterr().out)
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    found = compare(["a", "b"])
    assert found.joint is not None
    for one, standings in zip(found.searches, found.joint.standings, strict=True):
        legend = f"{one.label}: {standings.count('yes')} of {len(one.opened.rows)} on the joint front"
        assert legend in texts
    groups = [node.get("class") for node in root.iter("{http://www.w3.org/2000/svg}g")]
    every = [standing for standings in found.joint.standings for standing in standings]
    assert groups.count("dominated") == every.count("no") and len(groups) == len(every)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["a"], "usage"),
        (["a", "a/"], "conflict"),
        (["a", "nowhere"], "missing-file"),
        (["a", "b", "--study", "chaep"], "unknown-name"),
        (["a", "b", "--svg", "--json"], "usage"),
    ],
)
def test_what_cannot_be_compared_is_exit_1_and_makes_nothing(
    arguments: list[str], rule: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state_of(here)
    assert run(["compare", *arguments]) == 1
    assert f"[{rule}]" in capsys.readouterr().err
    assert state_of(here) == before and not (here / "nowhere").exists()


# --- conditions -----------------------------------------------------------------------------------------------------


def view(**accuracy: Any) -> StudyView:
    plan = {
        "latency": "ort 1 | cpu | batch 1",
        "accuracy": {"data": "imagefolder:a", "recipe": {"lr": 0.1}, **accuracy},
    }
    names = ("accuracy", "latency")
    return StudyView("s", {"plan": plan}, tuple(map(objective_named, names)), (), ())


def test_conditions_are_named_to_the_field() -> None:
    assert conditions_of(view()) == {
        "objectives": "accuracy, latency",
        "latency target": "ort 1 | cpu | batch 1",
        "data": "imagefolder:a",
        "recipe.lr": "0.1",
    }


def test_the_same_images_elsewhere_are_the_same_data() -> None:
    one = view(fingerprint="f", data="imagefolder:a")
    other = view(fingerprint="f", data={"type": "imagefolder", "path": "/b", "workers": 3})
    assert conditions_of(one) == conditions_of(other)
    assert conditions_of(one) != conditions_of(view(fingerprint="g", data="imagefolder:a"))
    cropped = view(fingerprint="f", data={"type": "imagefolder", "path": "a", "crop": 0.9})
    assert conditions_of(one) != conditions_of(cropped)


def test_first_weights_and_every_target_count() -> None:
    assert conditions_of(view(weights={"file": "x"}))["first weights.file"] == "x"
    several = StudyView("s", {"plan": {"latency": {"one": "p", "two": "q"}}}, (objective_named("latency@one"),), (), ())
    assert conditions_of(several)["latency target.two"] == "q"


def test_seeds_and_constraints_are_told_and_do_not_matter(here: Path) -> None:
    search(here / "space.yaml", out=here / "bound", trials=2, set=["constraints.params.min=100k"])
    found = compare(["a", "bound"])
    assert found.joint is not None and set(found.noted) == {"constraints.params.min"}
    with pytest.raises(StudyError, match="only one search"):
        compare(["a"])
