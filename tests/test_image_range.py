"""Images for a build that are not normalised as the network expects are noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from archdsl.builds.image_range import USUAL, range_note
from archdsl.cli.main import run

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16)).astype(np.float32)
MEAN, STD = (np.array(USUAL[name], np.float32)[:, None, None] for name in ("mean", "std"))
NORMAL = (PIXELS / 255 - MEAN) / STD


@pytest.mark.parametrize(
    ("images", "seems"),
    [
        (PIXELS, "pixels from 0 to 255"),
        (PIXELS / 255, "pixels from 0 to 1"),
        (PIXELS / 127.5 - 1, "pixels from -1 to 1"),
        ((PIXELS - MEAN) / STD, "no pixels at all"),
        (NORMAL * 3, "no pixels at all"),
        (PIXELS[:1] / 255 * 0.5, "pixels from 0 to 1"),
    ],
)
def test_what_is_not_normalised_is_noticed(images: np.ndarray, seems: str) -> None:
    note = range_note(images)
    assert note is not None and f"seem {seems}; the network expects" in note and "0.485" in note and "2.64" in note


@pytest.mark.parametrize("images", [NORMAL, NORMAL[:1] * 0.4, NORMAL * 1.05, np.clip(NORMAL, -1.5, 1.5)])
def test_what_is_normalised_is_not(images: np.ndarray) -> None:
    assert range_note(images) is None


def test_networks_that_expect_something_else_are_asked() -> None:
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert range_note(PIXELS / 127.5 - 1, half) is None
    assert range_note(PIXELS, half) is not None


def test_a_build_tells_and_a_training_s_folder_says_what_is_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (40, 40), (index * 30, 99, 0)).save(tmp_path / "data" / label / f"{index}.png")
    data = f"{{type: imagefolder, path: {tmp_path}/data, workers: 0, crop: 0.9}}"
    small = ["--set", "stem.dim=8", "--set", "stages.*.depth=1", "--set", "head.classes=2"]
    trained = ["train", "micro_swin", *small, "--data", data, "--recipe", "quick", "--epochs", "1"]
    assert run([*trained, "--out", str(tmp_path / "run")]) == 0
    np.save(tmp_path / "raw.npy", np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.float32))
    capsys.readouterr()
    command = ["build", str(tmp_path / "run"), "--emit", "onnx", "-o", str(tmp_path / "out")]
    assert run([*command, "--images", str(tmp_path / "raw.npy")]) == 0
    assert "note: the images have values from 0 to 255 and seem pixels from 0 to 255" in capsys.readouterr().err
    told = json.loads((tmp_path / "out/build.json").read_text())
    assert "seem pixels from 0 to 255" in told["image_note"]
    assert told["classes"] == ["cat", "dog"] and told["preprocessing"]["crop"] == 0.9
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "out/model.onnx").metadata_props}
    assert json.loads(metadata["classes"]) == ["cat", "dog"]
    assert json.loads(metadata["preprocessing"]) == told["preprocessing"]
    assert run([*command, "--images", str(tmp_path / "data")]) == 0
    err = capsys.readouterr().err
    assert "of 2 images held out of those to train on" in err and "the images have values" not in err
