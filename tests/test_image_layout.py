"""Which folders of an image folder are trained on, which are validated on, and how that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from archdsl.errors import TrainingError
from archdsl.training.data.imagefolder import Folder, ImageFolder


def write(root: Path, *folders: str, count: int = 10) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (10, 10)).save(root / folder / f"{index}.png")
    return root


def opened(root: Path, **fields: Any) -> Folder:
    data = ImageFolder(path=str(root), workers=0, **fields).open((8, 8))
    assert isinstance(data, Folder)
    return data


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_the_usual_names_of_a_validation_folder_are_known(name: str, tmp_path: Path) -> None:
    data = opened(write(tmp_path, "train/a", "train/b", f"{name}/a", f"{name}/b"))
    assert (data.num_train, data.num_val, data.num_classes) == (20, 20, 2)
    assert data.validation == f"the 20 images in {name}/"


def test_of_several_one_serves_and_the_others_are_told(tmp_path: Path) -> None:
    data = opened(write(tmp_path, "train/a", "train/b", "test/a", "valid/b"))
    assert data.num_val == 10 and data.validation == "the 10 images in valid/; `test/` is not used"


def test_a_test_folder_without_classes_serves_nobody(tmp_path: Path) -> None:
    data = opened(write(tmp_path, "train/a", "train/b", "test"))
    assert data.num_val == 2 and "held out" in data.validation and "`test/` holds no class folders" in data.validation


def test_class_folders_alone_are_split_by_a_seed_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a", "b", "c")
    splits = {seed: opened(tmp_path, val_part=0.3, split_seed=seed) for seed in (0, 1, 2)}
    for seed, data in splits.items():
        assert (data.num_train, data.num_val, data.classes) == (21, 9, ["a", "b", "c"])
        assert (
            data.validation == f"9 images held out of those to train on: 0.3 of each class, split_seed {seed}"
        ) and data.val == opened(tmp_path, val_part=0.3, split_seed=seed).val
    assert len({str(data.val) for data in splits.values()}) == len({data.key() for data in splits.values()}) == 3


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert opened(write(tmp_path, "car", "test", "train")).classes == ["car", "test", "train"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["val/a"], r"has val/ but no train/<class>/ with images \[missing-folder\]"),
        (["train/.hidden"], r"holds neither train/<class>/ nor class folders with images \[no-images\]"),
        (["train/a", "valid/b"], r"valid` has classes that `train` has not: b \[classes\]"),
        (["train/a", "val"], r"val` holds no class folder with images \[no-images\]"),
    ],
)
def test_folders_that_make_no_data_are_refused_with_what_is_missing(
    folders: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=message):
        opened(write(tmp_path, *folders))


def test_an_image_beside_the_class_folders_is_told(tmp_path: Path) -> None:
    write(tmp_path, "train/a", "train/b")
    Image.new("RGB", (10, 10)).save(tmp_path / "train/stray.png")
    assert opened(tmp_path).notes == (f"one file is in no class folder and was skipped: {tmp_path}/train/stray.png",)


def test_what_a_network_was_trained_with_is_known(tmp_path: Path) -> None:
    data = opened(write(tmp_path, "cat", "dog"), crop=0.9)
    assert data.preprocessing == {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "size": [8, 8],
        "crop": 0.9,
        "interpolation": "bicubic",
    }
