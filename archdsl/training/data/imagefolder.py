"""Images in class folders: `train/<class>/*.jpg` and `val/<class>/*.jpg`, the layout ImageNet is kept in."""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from archdsl.training.data.decode import decode, open_regular
from archdsl.training.data.fingerprint import CONTENT, MOST_BYTES
from archdsl.training.data.images import Images, train_val_split
from archdsl.training.data.layout import Layout, layout_of
from archdsl.training.data.source import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

    from archdsl.training.data import Data


class ImageFolder(ImageSource):
    """Class folders `<class>/*.jpg`; classes are numbered in the order of their names.

    With `train/<class>/`, the first of the folders val, validation, valid and test serves as validation. Without one,
    or without `train`, `val_part` of each class is held out, chosen by digest of `split_seed` and the file names.
    Training images: a random part of `min_area` to all of the image, at an aspect ratio of 3/4 to 4/3, resized, flipped
    left to right half of the time, and augmented as the recipe says. Validation images: resized so that the shorter
    side is size / `crop`, then the centre. Both normalised with ImageNet's mean and standard deviation. A network of 1,
    2, 3 or 4 input channels sees grey, grey and alpha, colours, or colours and alpha.

    What is no image by its name, and what cannot be decoded, is skipped, named and counted (see `Images`). Names that
    start with a dot are not looked at.
    """

    type: Literal["imagefolder"] = "imagefolder"

    def open(self, image_size: tuple[int, int] = (224, 224), channels: int = 3) -> Data:
        """List the files.

        Raises TrainingError: channels, missing-library, missing-folder, no-images, classes (train and val do not agree)
        """
        self.check_channels(channels)
        if find_spec("PIL") is None:
            hint = "pip install 'archdsl[train]'"
            raise self.error("missing-library", "reading images needs Pillow, which is not installed", hint)
        root = Path(expanduser(self.path))
        return Folder(self, root, layout_of(root, self), image_size, channels)


class FileReader:
    """Reads image files by path. root: the folder that names are relative to"""

    def __init__(self, root: str = "", channels: int = 3, *, exif_orientation: bool = False):
        self.root, self.channels, self.exif_orientation = root, channels, exif_orientation

    def open(self, item: str) -> Image:
        with open_regular(item) as file:
            return decode(file, self.channels, exif_orientation=self.exif_orientation)

    def read(self, item: str) -> bytes:
        with open_regular(item) as file:
            return file.read(MOST_BYTES)

    def listed(self, item: str) -> tuple[str, int]:
        return item[len(self.root) :].lstrip(os.sep), os.stat(item).st_size

    def name(self, item: str) -> str:
        return item


class Folder(Images[str]):
    """An opened image folder. `train` and `val` hold (path, label)."""

    def __init__(self, source: ImageFolder, root: Path, layout: Layout, image_size: tuple[int, int], channels: int):
        classes = sorted(layout.train)
        number = {name: index for index, name in enumerate(classes)}

        def items(files: dict[str, list[str]]) -> list[tuple[str, int]]:
            return [(str(root / file), number[name]) for name in sorted(files) for file in files[name]]

        train, said = items(layout.train), "; ".join(["", *layout.said])
        if layout.val is not None:
            val = items(layout.val)
            validation = f"the {len(val)} images in {layout.val_name}/{said}"
        else:
            names = [file for name in classes for file in layout.train[name]]
            kept, held = train_val_split(train, names, source.val_part, source.split_seed)
            train, val = [train[place] for place in kept], [train[place] for place in held]
            validation = source.held_out(len(val)) + said
            if not val:
                hint = "add a folder `val`, or images"
                raise source.error("no-images", "no class has two images, so none can be held out", hint)
        reader = FileReader(str(root), channels, exif_orientation=source.exif_orientation)
        super().__init__(source, reader, train, val, classes, image_size, validation, layout.set_aside)

    def key(self) -> str:
        """Fields, a digest of file names and classes in order, and one of the contents."""
        root = Path(expanduser(self.source.path))
        names = [f"{os.path.relpath(path, root)} {label}" for path, label in (*self.train, *self.val)]
        digest = hashlib.sha256(os.fsencode("\n".join([*names, f"{len(self.train)} to train on"]))).hexdigest()[:16]
        return f"imagefolder files={digest} {self.views()}{CONTENT}{self.content.digest}"
