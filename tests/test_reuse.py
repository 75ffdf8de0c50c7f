"""`search --reuse`: trainings of another search count where data, recipe and seed are the same; others are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from test_image_folder import write_images

from archdsl.cli.main import run
from archdsl.errors import StudyError
from archdsl.evaluators import train_worker
from archdsl.evaluators.train_processes import Trainers
from archdsl.language import Spec, load_space, loads_space
from archdsl.runs.search import search
from archdsl.training.outcome import Accuracy, combined
from archdsl.training.results import JsonLines

SPACE = """
name: small
base: micro_swin_free
choices:
  stages.0.depth: [1, 2]
objectives:
  accuracy:
    train:
      data: {type: synthetic, num_train: 32, num_val: 16}
      recipe: {extends: quick, epochs: 1, batch: 16}
  params: {}
search: {trials: 2, sampler: random}
"""
WIDER = SPACE.replace("name: small", "name: wider").replace("[1, 2]", "[1, 2, 3]").replace("trials: 2", "trials: 3")


class TrainersHere(Trainers):
    """Trains in this process: the answers are those of the training process. jobs: what was really trained"""

    kept: ClassVar[dict[str, Any]] = {}
    jobs: ClassVar[list[Path]] = []

    def advance(self, spec: Spec, *, seed: int = 0, to_epoch: int) -> Accuracy:
        found = []
        for index in range(self.num_seeds):
            job = {**self._job(spec, seed + index), "to_epoch": to_epoch, "number": 0, "device": "cpu"}
            silent: Any = SimpleNamespace(tell=lambda *told, **more: None)
            reply = train_worker._answer(job, self.kept, silent)
            found.append(Accuracy.from_json(reply["accuracy"]))
            self.jobs += [self.results] if found[-1].paid_epochs else []
        return combined(found)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("archdsl.runs.search_parts.Trainers", TrainersHere)
    TrainersHere.kept, TrainersHere.jobs = {}, []


def origins(result: Any) -> list[str]:
    """Of its trainings, the folder of the search that did each; what this search trained has none."""
    TrainersHere.kept.clear()  # the next search has training processes of its own
    done = [record for record in result.records if record.accuracy and record.duplicate_of is None]
    return [origin for record in done for origin in record.accuracy.origins]


def test_a_wider_space_trains_only_what_is_new(tmp_path: Path) -> None:
    first = search(loads_space(SPACE), out="first")
    assert len(TrainersHere.jobs) == 2 and first.as_json()["reused"] == {"trainings": 0, "by_origin": {}}
    wider = search(loads_space(WIDER), out="wider", reuse=["first"])
    assert len(TrainersHere.jobs) == 3, "one of three networks is new"
    first_folder = str(tmp_path / "first")
    assert wider.as_json()["reused"] == {"trainings": 2, "by_origin": {first_folder: 2}}
    before = {record.hash: record.accuracy.mean for record in first.records if record.accuracy}
    after = {record.hash: record.accuracy.mean for record in wider.records if record.accuracy}
    assert before.items() <= after.items()
    # a third search knows where the trainings were done, not only where it found them
    third = search(loads_space(WIDER), out="third", reuse=["wider"])
    assert len(TrainersHere.jobs) == 3
    assert sorted(origins(third)) == sorted([first_folder, first_folder, str(tmp_path / "wider")])
    again = search(loads_space(WIDER), out="third")  # the study keeps them
    assert sorted(origins(again)) == sorted(origins(third))


def test_a_study_that_begins_anew_reuses_its_own_that_were_set_aside(tmp_path: Path) -> None:
    assert origins(search(loads_space(SPACE), out="first")) == []
    anew = search(loads_space(SPACE), out="first", fresh=True, reuse=["first"])
    assert len(TrainersHere.jobs) == 2 and origins(anew) == [str(tmp_path / "first")] * 2
    search(loads_space(SPACE), out="first", fresh=True)
    assert len(TrainersHere.jobs) == 4, "--fresh alone trains anew"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("objectives.accuracy.train.data.num_train=48", 'accuracy.data.num_train: "32" -> "48"'),
        ("objectives.accuracy.train.recipe.epochs=2", 'accuracy.recipe.epochs: "1" -> "2"'),
        ("objectives.accuracy.train.recipe.lr=0.125", 'accuracy.recipe.lr: "'),
        ("objectives.accuracy.train.epochs=3", 'accuracy.recipe.epochs: "1" -> "3"'),
        ("search.seed=7", "seed: 0 -> 7"),
    ],
)
def test_trainings_that_do_not_fit_are_refused_and_the_field_is_named(
    change: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, and a study that is there is not set aside."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    search(load_space(space), out="first")
    assert run(["search", str(space), "--out", "second", "--reuse", "first", "--set", change, "--json"]) == 1
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert (error["rule"], error["file"]) == ("other-study", "--reuse") and said in error["message"]
    assert error["message"].count("->") == 2, "no other field differs"
    assert not Path("second").exists()
    journal = Path("first/study.journal").read_bytes()
    assert run(["search", str(space), "--out", "first", "--fresh", "--reuse", "first", "--set", change]) == 1
    assert Path("first/study.journal").read_bytes() == journal


def test_other_images_are_another_fingerprint(tmp_path: Path) -> None:
    data = f"objectives.accuracy.train.data={{type: imagefolder, path: {tmp_path}/images, workers: 0}}"
    small = [data, "objectives.accuracy.train.recipe.batch=4", "head.classes=3"]
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("base: micro_swin_free", "base: base.yaml"))
    (tmp_path / "base.yaml").write_text("extends: micro_swin_free\nname: base\nhead: {classes: 3}\n")
    write_images(tmp_path / "images", train=2, val=1)
    search(load_space(space, small[:2]), out="first", trials=1)
    picture = tmp_path / "images/train/zebra/1.jpg"
    picture.write_bytes(picture.read_bytes() + b"!")
    with pytest.raises(StudyError, match=r"accuracy\.fingerprint: .* -> "):
        search(load_space(space, small[:2]), out="second", trials=1, reuse=["first"])


def test_a_folder_without_trainings_and_a_search_that_trains_nothing_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(StudyError, match=f"there are no finished trainings in {name}"):
            search(loads_space(SPACE), reuse=[name])
    (tmp_path / "empty/trainings.jsonl").write_text('{"key": "of another form", "value": {}, "check": 0}\n?\n')
    with pytest.raises(StudyError, match="there are no finished trainings in empty"):
        search(loads_space(SPACE), reuse=["empty"])
    costs = re.sub(r"  accuracy:\n(    .*\n)+", "  macs: {}\n", SPACE)
    with pytest.raises(StudyError, match="trains nothing"):
        search(loads_space(costs), reuse=["empty"])
    assert not (tmp_path / "runs").exists()


def test_of_a_folder_with_several_recipes_those_that_fit_are_taken(tmp_path: Path) -> None:
    search(loads_space(SPACE), out="first")
    there = JsonLines("first/trainings.jsonl")
    for key, value in there.all().items():
        there[key.replace("epochs=1", "epochs=9")] = value
    search(loads_space(SPACE), out="second", reuse=["first"])
    assert len(JsonLines("second/trainings.jsonl").all()) == 2 == len(TrainersHere.jobs)


def test_trainings_from_other_weights_do_not_fit(tmp_path: Path) -> None:
    search(loads_space(SPACE), out="first")
    (tmp_path / "from_weights").mkdir()
    other = JsonLines("from_weights/trainings.jsonl")
    for key, value in JsonLines("first/trainings.jsonl").all().items():
        other[f"{key} | weights=0123 from=timm new_head"] = value
    said = r'accuracy\.weights: "weights=0123 from=timm new_head" -> null'
    with pytest.raises(StudyError, match=said):
        search(loads_space(SPACE), out="second", reuse=["from_weights"])


def test_the_seeds_of_the_confirmation_are_taken_over_too(tmp_path: Path) -> None:
    space = SPACE.replace("sampler: random", "sampler: random, confirm: {seeds: 1}")
    search(loads_space(space), out="first")
    num_trained = len(TrainersHere.jobs)
    assert num_trained > 2, "the front was trained with one more seed"
    TrainersHere.kept.clear()
    search(loads_space(space), out="second", reuse=["first"])
    assert len(TrainersHere.jobs) == num_trained
