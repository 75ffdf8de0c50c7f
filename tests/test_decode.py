"""Every mode that Pillow opens arrives in the right range, or is set aside with its reason; nothing else is opened."""

from __future__ import annotations

import io
import logging
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archdsl.training.data.imagefolder import FileReader, Folder, ImageFolder

RAMP = np.linspace(0, 1, 256)[None].repeat(8, 0)
"""What each picture shows: black at the left, white at the right."""


def _palette(transparent: bytes | int | None) -> Image.Image:
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(8, 0)).convert("P")
    image.putpalette([value for shade in range(256) for value in (shade,) * 3])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


GREY = Image.fromarray(np.rint(RAMP * 255).astype(np.uint8))
PICTURES = {
    "8 bits.png": GREY,
    "16 bits.png": Image.fromarray((RAMP * 65535).astype(np.uint16)),
    "16 bits.tif": Image.fromarray((RAMP * 65535).astype(np.uint16)),
    "16 bits, big end first.tiff": Image.fromarray((RAMP * 65535).astype(">u2")),
    "16 bits.pgm": Image.fromarray((RAMP * 65535).astype(np.int32)),
    "floats.tif": Image.fromarray(RAMP.astype(np.float32)),
    "grey and alpha.png": Image.merge("LA", (GREY, Image.new("L", GREY.size, 128))),
    "colours and alpha.webp": Image.merge("RGBA", (GREY, GREY, GREY, Image.new("L", GREY.size, 200))),
    "palette.png": _palette(None),
    "palette, one transparent.png": _palette(0),
    "palette, half transparent.png": _palette(bytes([128] * 256)),
    "cmyk.tif": Image.merge("CMYK", (*[Image.new("L", GREY.size)] * 3, Image.eval(GREY, lambda x: 255 - x))),
    "colours.bmp": GREY.convert("RGB"),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.filterwarnings("error")
def test_every_mode_arrives_from_black_to_white(name: str, tmp_path: Path) -> None:
    lossless = {"lossless": True} if name.endswith(".webp") else {}
    PICTURES[name].save(tmp_path / name, **lossless)
    image = FileReader().open(str(tmp_path / name))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(float) - RAMP[..., None] * 255).max() <= 1.0


def test_black_and_white_bits_are_black_and_white(tmp_path: Path) -> None:
    GREY.convert("1").save(tmp_path / "x.png")
    assert set(np.unique(FileReader().open(str(tmp_path / "x.png")))) == {0, 255}


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("a.tif", np.full((8, 8), 70000, np.int32), "has 32-bit or signed integers, which do not say what is white"),
        ("a.tif", np.full((8, 8), 130.0, np.float32), "has numbers outside 0 to 1, which do not say what is white"),
        ("a.tif", np.full((8, 8), -0.5, np.float32), "has numbers outside 0 to 1, which do not say what is white"),
        ("a.tif", np.full((8, 8), np.nan, np.float32), "has numbers outside 0 to 1, which do not say what is white"),
    ],
)
def test_a_range_that_is_not_known_is_set_aside_with_its_reason(
    name: str, values: np.ndarray, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for index in range(4):
            GREY.save(tmp_path / "train" / label / f"{index}.png")
    Image.fromarray(values).save(tmp_path / "train/a" / name)
    data = ImageFolder(path=str(tmp_path), workers=0, val_part=0.25).open((8, 8))
    assert isinstance(data, Folder)
    with caplog.at_level(logging.WARNING):
        list(data.train_batches(2, seed=0, epoch=0)), list(data.val_batches(2))
    assert data.notes == (f"one file {reason} and was skipped: {tmp_path}/train/a/{name}",)
    assert reason in caplog.text


def test_exif_orientation_is_followed_when_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it right by 90 degrees to see it upright
    Image.new("RGB", (40, 10)).save(tmp_path / "x.jpg", exif=exif)
    (tmp_path / "x.jpg").rename(tmp_path / "y.jpg")
    assert FileReader().open(str(tmp_path / "y.jpg")).size == (40, 10)
    assert FileReader(exif_orientation=True).open(str(tmp_path / "y.jpg")).size == (10, 40)


@pytest.mark.parametrize(("channels", "shape"), [(1, (8, 256)), (2, (8, 256, 2)), (3, (8, 256, 3)), (4, (8, 256, 4))])
@pytest.mark.parametrize("name", ["8 bits.png", "16 bits.png", "colours and alpha.webp", "palette.png", "cmyk.tif"])
def test_a_network_gets_as_many_channels_as_it_takes(
    name: str, channels: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    PICTURES[name].save(tmp_path / name)
    assert np.asarray(FileReader(channels=channels).open(str(tmp_path / name))).shape == shape


# --- what is opened ---------------------------------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif"])
def test_no_program_is_started_for_a_file_that_is_called_an_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ran\nexit 1\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(Exception, match="its content is none of BMP, JPEG"):
        FileReader().open(str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["GIF", "ICO", "PCX", "TGA"])
def test_other_formats_are_not_opened_under_a_known_ending(kind: str, tmp_path: Path) -> None:
    GREY.resize((16, 16)).save(tmp_path / "x.png", kind)
    with pytest.raises(Exception, match="its content is none of"):
        FileReader().open(str(tmp_path / "x.png"))


HANGS = """
import os, sys
from archdsl.training.data.imagefolder import ImageFolder
from archdsl.cli.main import run
root = sys.argv[1]
data = ImageFolder(path=root, workers=0).open((8, 8))
list(data.train_batches(2, seed=0, epoch=0))
print(data.notes[0])
data.key()
sys.exit(run(["build", "micro_swin", "--images", root + "/pipe.npy"]))
"""


def test_a_pipe_holds_nothing_up(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for index in range(4):
            GREY.save(tmp_path / "train" / label / f"{index}.png")
    os.mkfifo(tmp_path / "train/a/pipe.png")
    os.mkfifo(tmp_path / "pipe.npy")
    run = subprocess.run([sys.executable, "-c", HANGS, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert f"one file is not a regular file and was skipped: {tmp_path}/train/a/pipe.png" in run.stdout
    assert run.returncode == 1 and "pipe.npy cannot be read as images: it is not a regular file" in run.stderr


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff\xfe", b"a\x1b[31mred", b"new\nline"])
def test_names_that_cannot_be_printed_work_and_are_escaped(name: bytes, tmp_path: Path) -> None:
    for label in (name, b"z"):
        folder = os.fsencode(tmp_path) + b"/train/" + label
        os.makedirs(folder)
        for index in range(4):
            GREY.save(os.fsdecode(folder + b"/%d.png" % index))
    with open(os.fsencode(tmp_path) + b"/train/" + name + b"/" + name + b".png", "wb") as file:
        file.write(b"nothing")
    data = ImageFolder(path=str(tmp_path), workers=0, val_part=0.25).open((8, 8))
    assert isinstance(data, Folder)
    list(data.train_batches(2, seed=0, epoch=0)), list(data.val_batches(2))
    assert data.key() and all(note.isprintable() and note.encode() for note in data.notes) and len(data.notes) == 1


def _with_lost_tag() -> bytes:
    """A TIFF whose resolution lies behind the end of the file."""
    file = io.BytesIO()
    GREY.save(file, "tiff", dpi=(72, 72))
    raw = bytearray(file.getvalue())
    at = raw.index(struct.pack("<HHI", 282, 5, 1)) + 8
    raw[at : at + 4] = struct.pack("<I", 2**24)
    return bytes(raw)


def _with_wrong_exif() -> bytes:
    """A JPEG whose EXIF data end in the middle of a tag."""
    file = io.BytesIO()
    GREY.convert("RGB").save(file, "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01")
    return file.getvalue()


def _large() -> bytes:
    file = io.BytesIO()
    GREY.save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("make", [_with_lost_tag, _with_wrong_exif, _large], ids=["tag", "exif", "many pixels"])
@pytest.mark.filterwarnings("error")
def test_what_pillow_warns_of_and_reads_is_read_without_a_word(make, tmp_path: Path, monkeypatch) -> None:
    if make is _large:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.width * GREY.height * 2 // 3)
    (tmp_path / "x.png").write_bytes(make())
    reader = FileReader(exif_orientation=True)
    assert reader.open(str(tmp_path / "x.png")).size == GREY.size
