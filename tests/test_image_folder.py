"""Image folders and saved datasets: what is read, held out, replaced and told."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toy_training import Refusing, changed

from archdsl.errors import SpecError, TrainingError
from archdsl.training import parse_source, train
from archdsl.training.data.imagefolder import Folder, ImageFolder
from archdsl.training.data.images import train_val_split
from archdsl.training.data.saved import SavedDataset
from archdsl.training.timm_parts import Augmentation

CLASSES = ("blue_bird", "red fish", "zebra")


def picture(channel: int, draw: np.random.Generator) -> Image.Image:
    pixels = draw.integers(0, 90, (30, 40, 3), dtype=np.uint8)
    pixels[:, :, channel] += 150
    return Image.fromarray(pixels)


def write_images(root: Path, train: int = 6, val: int = 0) -> Path:
    draw = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for channel, name in enumerate(CLASSES if count else ()):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                picture(channel, draw).save(root / part / name / f"{index}.jpg")
    return root


def opened(root: Path, **fields: Any) -> Folder:
    data = ImageFolder(**{"path": str(root), "workers": 0, **fields}).open((8, 8))
    assert isinstance(data, Folder)
    return data


def labels_of(batches: Any) -> list[int]:
    return [label for _, labels in batches for label in labels.tolist()]


def test_processes_that_decode_import_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images(tmp_path / "images", train=2, val=1)
    for name in ("types", "queue", "struct", "PIL", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the folder of the user')")
    monkeypatch.chdir(tmp_path)
    data = opened(root, workers=1)
    assert labels_of(data.val_batches(4)) == [0, 1, 2]
    data.close()


# --- held out ---------------------------------------------------------------------------------------------------------


def test_without_a_val_folder_a_part_of_each_class_is_held_out_always_the_same(tmp_path):
    root = write_images(tmp_path, train=10)
    data, again = opened(root, val_part=0.2), opened(root, val_part=0.2)
    assert (data.num_train, data.num_val) == (24, 6)
    assert data.val == again.val and not {path for path, _ in data.val} & {path for path, _ in data.train}
    assert sorted(labels_of(data.val_batches(4))) == [0, 0, 1, 1, 2, 2]
    assert data.key() == again.key() != opened(root, val_part=0.3).key()


def test_few_images_change_sides_when_more_are_added():
    few = [(f"{i}.jpg", 0) for i in range(100)]
    more = [*((f"new {i}.jpg", 0) for i in range(10)), *few]
    held = [
        {items[place][0] for place in train_val_split(items, [name for name, _ in items], 0.1)[1]}
        for items in (few, more)
    ]
    assert len(held[0]) == 10 and len(held[1]) == 11 and len(held[0] & held[1]) >= 8


def test_of_two_images_one_is_held_out_and_a_single_one_is_trained_on():
    items = [("a", 0), ("b", 0), ("c", 1)]
    kept, held = train_val_split(items, ["a", "b", "c"], 0.01)
    assert len(held) == 1 and held[0] in (0, 1) and 2 in kept


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_another_image_of_the_class_takes_the_place_of_one_that_cannot_be_read(tmp_path, caplog):
    root = write_images(tmp_path, train=6, val=2)
    (root / "train/red fish/1.jpg").write_bytes(b"nothing")
    whole = (root / "train/red fish/2.jpg").read_bytes()
    (root / "train/red fish/2.jpg").write_bytes(whole[: len(whole) // 2])
    data = opened(root)
    with caplog.at_level(logging.WARNING):
        labels = labels_of(data.train_batches(6, seed=0, epoch=0))
    assert sorted(labels) == [0] * 6 + [1] * 6 + [2] * 6, "the next file of the list, which is of the same class"
    assert len(data.corrupt) == 2 and caplog.text.count("skipped") == 2
    (note,) = data.notes
    assert note.startswith("2 files could not be decoded as an image and were skipped: ")
    assert "red fish/1.jpg" in note and "red fish/2.jpg" in note


def test_which_image_is_where_depends_neither_on_workers_nor_on_processes(tmp_path):
    root = write_images(tmp_path, train=6, val=3)
    for name in ("train/zebra/0.jpg", "train/zebra/5.jpg", "val/zebra/1.jpg"):
        (root / name).write_bytes(b"nothing")
    plain = opened(root)
    expected = list(plain.train_batches(8, seed=3, epoch=1))
    workers = opened(root, workers=2)
    for _ in range(2):  # the workers live on from pass to pass
        for (images, labels), (one, other) in zip(workers.train_batches(8, seed=3, epoch=1), expected, strict=True):
            assert torch.equal(images, one) and torch.equal(labels, other)
        judged = torch.cat([images for images, _ in workers.val_batches(4)])
        assert torch.equal(judged, torch.cat([images for images, _ in plain.val_batches(4)]))
    workers.close()
    halves = [list(opened(root).train_batches(8, seed=3, epoch=1, share=(rank, 2))) for rank in range(2)]
    for (first, _), (second, _), (images, _) in zip(*halves, expected, strict=True):
        together = torch.cat([first[:2], second, first[2:]])  # 0 1 | 2 3 4 5 | 6 7
        assert torch.equal(together, images)
    shares = [torch.cat([labels for _, labels in plain.val_batches(4, share=(rank, 2))]) for rank in range(2)]
    assert sorted(torch.cat(shares).tolist()) == sorted(labels_of(plain.val_batches(4)))


def test_files_that_are_no_images_are_counted_when_listing(tmp_path):
    root = write_images(tmp_path, train=2, val=1)
    (root / "train/zebra/notes.txt").write_text("no image")
    (root / "train/zebra/deeper").mkdir()
    (root / "train/readme.md").write_text("no class")
    (root / "train/.DS_Store").write_bytes(b"nobody asks")
    (note,) = opened(root).notes
    assert note.startswith("3 files have no ending of an image file and were skipped: ")
    assert "train/readme.md" in note and "DS_Store" not in note


def test_what_was_skipped_is_in_the_result_of_the_training(tmp_path):
    root = write_images(tmp_path, train=6, val=2)
    (root / "train/zebra/0.jpg").write_bytes(b"")
    (root / "val/zebra/0.jpg").write_bytes(b"")
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    outcome = train(model, opened(root), changed(batch=6, lr=0.1), seed=0)
    assert outcome.num_val == 5
    assert re.fullmatch(r"2 files could not be decoded .*train/zebra/0.jpg, .*val/zebra/0.jpg", outcome.notes[0])


def test_a_validation_set_of_nothing_but_corrupt_files_ends_with_a_reason(tmp_path):
    root = write_images(tmp_path, train=4, val=1)
    for name in CLASSES:
        (root / "val" / name / "0.jpg").write_bytes(b"nothing")
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(TrainingError, match=r"not one image of the validation set could be read \[no-images\]"):
        train(model, opened(root), changed(batch=6), seed=0)


def test_whatever_a_decoder_raises_is_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    data = opened(write_images(tmp_path, train=4, val=1))
    broken = data.train[0][0]
    plain = data.reader.open

    def odd(item: str) -> Image.Image:
        if item == broken:
            raise NotImplementedError("Unimplemented pixel format 1")
        return plain(item)

    monkeypatch.setattr(data.reader, "open", odd)
    list(data.train_batches(6, seed=0, epoch=0))
    assert data.corrupt == {broken: "NotImplementedError: Unimplemented pixel format 1"}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_in_a_process_that_decodes_keeps_its_rule_and_hint(tmp_path, workers):
    data = opened(write_images(tmp_path, train=2, val=1), workers=workers)
    data.train_view = Refusing()  # type: ignore[assignment]  # what it returns never comes
    with pytest.raises(TrainingError) as caught:
        list(data.train_batches(2, seed=0, epoch=0))
    (problem,) = caught.value.problems
    assert (problem.rule, problem.message, problem.hint) == ("missing-library", "the library is missing", "install it")
    data.close()


def test_a_killed_decoding_process_is_told_and_the_next_training_gets_others(tmp_path):
    data = opened(write_images(tmp_path, train=6, val=1), workers=1)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))

    def kill(epoch: object) -> None:
        os.kill(data._loader._iterator._workers[0].pid, signal.SIGKILL)

    recipe = changed(batch=6)
    with pytest.raises(TrainingError, match=r"a process that decodes images has ended(.|\n)*worker-lost(.|\n)*fewer"):
        train(model, data, recipe, seed=0, report=kill)
    assert train(model, data, changed(batch=6, epochs=1), seed=0).epochs == 1
    data.close()


def test_a_folder_in_the_home_is_the_same_data_from_wherever_it_is_read(tmp_path, monkeypatch):
    write_images(tmp_path / "home/data", train=2, val=1)
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    keys = []
    for folder in ("a", "a/b"):
        monkeypatch.chdir(tmp_path / folder)
        keys.append(opened(Path("~/data")).key())
    assert keys[0] == keys[1] == opened(tmp_path / "home/data").key()


def test_sources_that_differ_in_what_is_judged_read_differently():
    for name in ("imagefolder", "hf"):
        texts = [
            parse_source({"type": name, "path": "/x", **fields}).text()
            for fields in ({}, {"val_part": 0.2}, {"crop": 1.0}, {"min_area": 0.3}, {"workers": 7})
        ]
        assert texts[:4] == [f"{name}:/x{end}" for end in ("", " val_part=0.2", " crop=1.0", " min_area=0.3")]
        assert texts[4] == texts[0], "who decodes changes no image"
    assert parse_source({"type": "hf", "path": "/x", "image": "left"}).text() == "hf:/x image=left"


def test_augmented_images_are_others_and_as_many(timm, tmp_path):
    root = write_images(tmp_path, train=4, val=1)
    (root / "train/zebra/0.jpg").write_bytes(b"nothing")
    data = opened(root)
    other = data.augmented(Augmentation("rand-m9-mstd0.5-inc1", 0.0, 0.25))
    plain, changed_ones = (list(each.train_batches(6, seed=0, epoch=0)) for each in (data, other))
    assert [labels.tolist() for _, labels in plain] == [labels.tolist() for _, labels in changed_ones]
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(plain, changed_ones, strict=True))
    assert len(data.corrupt) == len(other.corrupt) == 1
    again = list(data.augmented(Augmentation("rand-m9-mstd0.5-inc1", 0.0, 0.25)).train_batches(6, seed=0, epoch=0))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(again, changed_ones, strict=True))


# --- datasets of Hugging Face -----------------------------------------------------------------------------------------


class FakeImage:
    """`datasets.Image` as far as it is used."""

    def __init__(self, decode: bool = True):
        self.decode = decode


FakeImage.__name__ = "Image"


class FakeLabel:
    def __init__(self, names: list[str]):
        self.names = names


class FakeSplit:
    """`datasets.Dataset` as far as it is used."""

    def __init__(self, cells: list[Any], labels: list[Any], features: dict[str, Any]):
        self.columns = {"image": cells, "label": labels}
        self.features, self._fingerprint = features, f"print{len(cells)}"

    def __getitem__(self, key: Any) -> Any:
        return (
            self.columns[key] if isinstance(key, str) else {name: column[key] for name, column in self.columns.items()}
        )

    def __len__(self) -> int:
        return len(self.columns["label"])

    def cast_column(self, name: str, kind: FakeImage) -> FakeSplit:
        assert name == "image" and not kind.decode
        return self


def cells(count: int) -> list[dict[str, Any]]:
    draw, found = np.random.default_rng(0), []
    for index in range(count):
        file = io.BytesIO()
        picture(index % 3, draw).save(file, "PNG")
        found.append({"bytes": file.getvalue(), "path": None})
    return found


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeSplit]:
    """The splits that a stand-in for the library `datasets` finds in any folder."""
    features = {"image": FakeImage(), "label": FakeLabel(list(CLASSES))}
    splits = {
        name: FakeSplit(cells(n), [i % 3 for i in range(n)], features) for name, n in (("train", 12), ("test", 6))
    }
    library = ModuleType("datasets")
    library.load_from_disk = lambda path: dict(splits)  # type: ignore[attr-defined]
    library.Image = FakeImage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    return splits


def test_a_saved_dataset_is_read_with_its_classes_and_corrupt_rows_are_named(saved):
    saved["train"].columns["image"][4] = {"bytes": b"nothing", "path": None}
    data = SavedDataset(path="/somewhere", workers=0).open((8, 8))
    assert (data.num_classes, data.num_train, data.num_val) == (3, 12, 6)
    images, labels = next(data.val_batches(6))
    assert images.mean(dim=(2, 3)).argmax(1).tolist() == labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(labels_of(data.train_batches(6, seed=0, epoch=0))) == 12
    assert data.notes == ("one file could not be decoded as an image and was skipped: /somewhere train[4]",)
    assert parse_source("hf:/somewhere") == SavedDataset(path="/somewhere")


def test_without_a_second_split_a_part_is_held_out(saved):
    del saved["test"]
    data = SavedDataset(path="/somewhere", workers=0, val_part=0.25).open((8, 8))
    assert (data.num_train, data.num_val) == (9, 3)


def test_a_dataset_without_the_columns_says_which_there_are(saved):
    with pytest.raises(TrainingError, match=r"no column `picture` \[missing-key\](.|\n)*columns: image, label"):
        SavedDataset(path="/x", image="picture").open((8, 8))
    del saved["train"].features["label"]
    with pytest.raises(TrainingError, match=r"has no column of labels"):
        SavedDataset(path="/x").open((8, 8))


def test_labels_of_another_split_must_be_classes_of_train(saved):
    saved["test"].columns["label"][0] = 7
    with pytest.raises(TrainingError, match=r"split test has labels that are no class of train: 7"):
        SavedDataset(path="/x").open((8, 8))


@pytest.mark.parametrize("odd", [None, [1, 2], b"cat", {"a": 1}], ids=str)
def test_labels_that_are_no_classes_are_refused(odd, saved):
    saved["train"].features["label"] = FakeLabel([])
    saved["train"].columns["label"][3] = odd
    with pytest.raises(
        TrainingError, match=r"split train has labels that are neither numbers nor names: .*\[classes\]"
    ):
        SavedDataset(path="/x").open((8, 8))


@pytest.mark.parametrize("error", [ValueError(), TypeError("a\nb"), AssertionError(), RecursionError("deep")], ids=repr)
def test_a_damaged_dataset_is_refused_whatever_the_library_raises(error, saved, monkeypatch):
    def fail(path):
        raise error

    monkeypatch.setattr(sys.modules["datasets"], "load_from_disk", fail)
    with pytest.raises(
        TrainingError, match=r"`/x` is no dataset that save_to_disk wrote: (a|deep|\w+Error) "
    ) as caught:
        SavedDataset(path="/x").open((8, 8))
    assert caught.value.problems[0].rule == "missing-folder"


def test_classes_of_another_split_are_found_by_name(saved):
    saved["test"].features = {"image": FakeImage(), "label": FakeLabel(list(reversed(CLASSES)))}
    data = SavedDataset(path="/x", workers=0).open((8, 8))
    assert [label for _, label in data.val] == [2, 1, 0, 2, 1, 0]
    saved["test"].features["label"] = FakeLabel([*CLASSES[:2], "gnu"])
    with pytest.raises(TrainingError, match=r"split test has labels that are no class of train: 'gnu'"):
        SavedDataset(path="/x").open((8, 8))


def test_other_images_of_a_dataset_are_other_data(saved):
    for split in saved.values():
        split.features = {"left": FakeImage(), "right": FakeImage(), "label": split.features["label"]}
    keys = [SavedDataset(path="/x", image=column).open((8, 8)).key() for column in ("left", "right")]
    assert keys[0] != keys[1]


def test_without_the_library_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TrainingError, match=r"needs their library `datasets`(.|\n)*pip install 'archdsl\[hf\]'"):
        SavedDataset(path="/x").open((8, 8))
    with pytest.raises(SpecError, match=r"`path` is missing"):
        parse_source("hf")


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_the_shipped_imagenet_study_runs_on_a_folder_of_images(tmp_path):
    """With a narrow base in the place of Swin-Free-B, latencies computed and images decoded in the training's process:
    everything else is as it ships.
    """
    root = write_images(tmp_path / "images", train=3, val=1)
    (root / "train/zebra/0.jpg").write_bytes(b"nothing")
    (root / "val/zebra/0.jpg").write_bytes(b"nothing")
    stages = "[{heads: 1, depth: 1}, {heads: 2, depth: 1}, {heads: 4}, {heads: 8, depth: 1}]"
    (tmp_path / "narrow.yaml").write_text(
        f"extends: swin_free_b\ninput: {{size: 96}}\nstem: {{dim: 16}}\nstages: {stages}\n"
    )
    space = Path(__file__).parents[1] / "search/swin_free_imagenet.yaml"
    shim = str(Path(__file__).parent / "torchvision_shim")
    environment = {**os.environ, "PYTHONPATH": shim, "ARCHDSL_CACHE_DIR": str(tmp_path / "cache")}
    command = ["search", str(space), "--epochs", "1", "--trials", "2", "--on", "null"]
    command += ["--set", f"objectives.accuracy.train.data={{type: imagefolder, path: {root}, workers: 0}}"]
    command += ["--set", "base=narrow.yaml", "--set", "search.start=[narrow.yaml]", "--set", "search.foresee=false"]
    run = subprocess.run(
        [sys.executable, "-m", "archdsl", *command, "--out", str(tmp_path / "run")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "all trials are done: 2 networks evaluated" in run.stderr
    assert "[1/2] narrow.yaml:" in run.stderr and "[2/2] " in run.stderr
    assert f"accuracy: imagefolder:{root}, recipe swin" in run.stdout
    assert "note: a batch is 8 images, not 1024: there are only 9 to train on" in run.stderr
    assert "note: 2 files could not be decoded as an image and were skipped: " in run.stderr
    assert "note: the network can answer 1000 classes, the data have 3" in run.stderr
