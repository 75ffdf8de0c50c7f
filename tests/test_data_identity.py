"""A study and a training go on with the data that they began with, and with no others."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from archdsl import search
from archdsl.cli.main import run
from archdsl.errors import ArchError, StudyError
from archdsl.runs.worker import work
from archdsl.training import parse_source
from archdsl.training.checkpoint import read_checkpoint, write_checkpoint

SPACE = """
name: small
base: micro_swin
choices: {stages.0.window: [2, 4]}
objectives:
  accuracy: {train: {data: {type: imagefolder, path: DATA, workers: 0}, recipe: quick, epochs: 1}}
  params: {}
search: {trials: 1}
"""


def write_images(root: Path, classes: str = "ab", shade: int = 0, count: int = 10) -> Path:
    for label in classes:
        (root / "train" / label).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (12, 12), (shade, index, 0)).save(root / "train" / label / f"{index}.bmp")
    return root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data")
    (tmp_path / "space.yaml").write_text(SPACE.replace("DATA", "data"))
    return tmp_path


def other_bytes(data: Path) -> None:
    Image.new("RGB", (12, 12), (255, 255, 255)).save(data / "train/a/3.bmp")


def other_size(data: Path) -> None:
    Image.new("RGB", (13, 12)).save(data / "train/b/3.bmp")


def one_more(data: Path) -> None:
    shutil.copy(data / "train/a/0.bmp", data / "train/a/new.bmp")


def one_renamed(data: Path) -> None:
    (data / "train/a/0.bmp").rename(data / "train/a/00.bmp")


def other_class(data: Path) -> None:
    (data / "train/a/0.bmp").rename(data / "train/b/new.bmp")


def third_class(data: Path) -> None:
    write_images(data, "c")


CHANGES = [other_bytes, other_size, one_more, one_renamed, other_class, third_class]


def begin(folder: Path, **options: object) -> None:
    """Make the study ready for workers: nothing is trained."""
    search(folder / "space.yaml", out=folder / "run", workers=0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_other_data_under_the_same_path_are_refused_by_search_and_worker(
    change: Callable[[Path], None], folder: Path
) -> None:
    begin(folder)
    begin(folder)
    change(folder / "data")
    then = r'"20 images, 2 classes, \d+ bytes, \w{16}"'
    line = rf'\(then -> now\): accuracy\.fingerprint: {then} -> ".*" \[other-study\]'
    with pytest.raises(StudyError, match=line):
        begin(folder)
    for force in (False, True):
        with pytest.raises(StudyError, match=line):
            work(str(folder / "run/study.journal"), out=folder / "worker", force=force)


def test_another_folder_behind_a_relative_path_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes the folder that the study's file means; on a machine without it, only if it holds the same."""
    begin(folder)
    write_images(folder / "elsewhere/data", shade=9)
    monkeypatch.chdir(folder / "elsewhere")
    journal = shutil.move(folder / "run/study.journal", folder / "elsewhere/study.journal")
    job_of_another_machine = Path(journal).read_text().replace(json.dumps(str(folder)), '"/not/here"')
    Path(journal).write_text(job_of_another_machine)
    with pytest.raises(StudyError, match=r"accuracy\.fingerprint: .*\[other-study\]"):
        work(str(journal), out=folder / "worker")


def test_a_study_older_than_the_fingerprint_takes_that_of_the_present_data_and_says_so_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(folder)
    journal = folder / "run/study.journal"
    text, count = re.subn(r',\s*"fingerprint":\s*"[^"]*"', "", journal.read_text())
    assert count == 1
    journal.write_text(text)
    said = []
    for _ in range(2):
        begin(folder, quiet=False)
        said.append("older than the fingerprint of data" in capsys.readouterr().err)
    assert said == [True, False]
    other_bytes(folder / "data")
    with pytest.raises(StudyError, match="other-study"):
        begin(folder)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../images", "./../images", "{type: imagefolder, path: ../images}"])
@pytest.mark.parametrize("here", [".", "study", "other"])
def test_a_path_in_a_file_is_relative_to_that_file(
    path: str, here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images")
    for name in ("study", "other"):
        (tmp_path / name).mkdir()
    data = path if path.startswith("{") else f"imagefolder:{path}"
    space = SPACE.replace("{type: imagefolder, path: DATA, workers: 0}", f"'{data}'" if data == path else data)
    (tmp_path / "study/space.yaml").write_text(space.replace("'{", "{").replace("}'", "}"))
    monkeypatch.chdir(tmp_path / here)
    found = search(tmp_path / "study/space.yaml", out=tmp_path / "run", workers=0)
    assert found.reason == "handed-over", "the data were found, and the study is ready for workers"


def test_a_path_on_the_command_line_is_relative_to_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(folder / "here/mine", shade=7)
    monkeypatch.chdir(folder / "here")
    command = ["search", "../space.yaml", "--workers", "0", "--out", str(folder / "run")]
    assert run([*command, "--data", "imagefolder:mine"]) == 0
    assert run([*command, "--data", "imagefolder:data"]) == 1
    assert parse_source("imagefolder:mine").text() == "imagefolder:mine"


@pytest.mark.parametrize(
    ("more", "place"),
    [([], r"space\.yaml:6:28"), (["--data", "imagefolder:nowhere"], r"--(set|data)|command line|objectives")],
)
def test_data_that_are_not_there_are_told_where_they_were_named(
    more: list[str], place: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "data")
    assert run(["search", str(folder / "space.yaml"), "--workers", "0", "--out", str(folder / "run"), *more]) == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert re.search(place, first) and "there is no folder" in first and "[missing-folder]" in first


# --- trainings --------------------------------------------------------------------------------------------------------


def train(folder: Path, *more: str) -> int:
    small = ["--set", "stem.dim=8", "--set", "stages.*.depth=1", "--recipe", "quick", "--epochs", "1"]
    data = f"{{type: imagefolder, path: {folder / 'data'}, workers: 0}}"
    return run(["train", "micro_swin", *small, "--data", data, "--out", str(folder / "out"), *more])


def test_a_training_goes_on_with_the_same_data_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder) == train(folder, "--resume") == 0
    assert "validation: 2 images held out" in capsys.readouterr().err
    told = json.loads((folder / "out/train.json").read_text())
    assert told["classes"] == ["a", "b"] and told["preprocessing"]["crop"] == 0.875
    for change in (other_bytes, one_more):
        change(folder / "data")
        assert train(folder, "--resume") == 1
        line = capsys.readouterr().err.splitlines()[0]
        assert "(fingerprint, then -> now): 20 images, 2 classes" in line and line.endswith("[other-study]")


def test_a_training_older_than_the_fingerprint_goes_on_and_says_so_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder) == 0
    marker, checkpoint = folder / "out/train.json", folder / "out/checkpoint.safetensors"
    told = json.loads(marker.read_text())
    del told["fingerprint"]
    marker.write_text(json.dumps({**told, "state": "training"}))
    state = read_checkpoint(checkpoint)
    state["run"] = re.sub(r" content=\w{16}", "", state["run"])
    write_checkpoint(checkpoint, state)
    said = []
    for _ in range(2):
        assert train(folder, "--resume") == 0
        said.append("older than the fingerprint of data" in capsys.readouterr().err)
    assert said == [True, False]


def test_results_of_other_contents_are_not_taken_for_those_of_these(tmp_path: Path) -> None:
    keys = set()
    for number, change in enumerate([lambda data: None, other_bytes, other_size]):
        change(write_images(tmp_path / str(number)))
        keys.add(parse_source(f"imagefolder:{tmp_path / str(number)}").open((8, 8)).key())
    assert len(keys) == 3


def test_the_same_data_elsewhere_are_the_same(tmp_path: Path) -> None:
    prints = {parse_source(f"imagefolder:{write_images(tmp_path / name)}").open((8, 8)).fingerprint() for name in "pq"}
    assert len(prints) == 1


@pytest.mark.parametrize("size", [1, 3])
def test_generated_images_have_as_many_channels_as_the_network(size: int) -> None:
    data = parse_source({"type": "synthetic", "num_train": 24, "num_val": 12}).open((16, 16), size)
    images, _ = next(data.val_batches(12))
    assert images.shape == (12, size, 16, 16) and data.fingerprint() == ""


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_of_one_and_of_four_channels_train(channels: int, folder: Path) -> None:
    assert train(folder, "--set", f"input.channels={channels}") == 0


def test_errors_are_of_this_project() -> None:
    with pytest.raises(ArchError, match="pictures have 1, 2, 3, 4"):
        parse_source("imagefolder:/nowhere").open((8, 8), 7)
