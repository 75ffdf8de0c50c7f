"""Images in class folders: `train/<class>/*.jpg` and `val/<class>/*.jpg`, the layout ImageNet is kept in."""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from archdsl.errors import Problem, TrainingError, at_argument
from archdsl.training.data.images import Images, carved
from archdsl.training.fields import changed_fields

if TYPE_CHECKING:
    from PIL.Image import Image

    from archdsl.training.data import Data

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")


class ImageFolder(BaseModel):
    """A folder with `train` and `val`, each with one folder a class; classes are numbered in the order of their names.

    Without `val`, `val_part` of each class of `train` is held out, chosen by digest of the file names.
    Training images: a random part of `min_area` to all of the image, at an aspect ratio of 3/4 to 4/3, resized, flipped
    left to right half of the time, and augmented as the recipe says. Validation images: resized so that the shorter
    side is size / `crop`, then the centre. Both normalised with ImageNet's mean and standard deviation.

    What is no image by its name, and what cannot be decoded, is skipped, named and counted (see `Images`). Names that
    start with a dot are not looked at.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["imagefolder"] = "imagefolder"
    path: str = Field(description="the folder that holds `train` and `val`")
    workers: int = Field(default=2, ge=0, le=256, description="processes that decode images; 0 decodes in this process")
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="smallest part of an image that a training crop may be"
    )
    crop: float = Field(default=0.875, gt=0, le=1, description="part of the shorter side that validation looks at")
    val_part: float = Field(
        default=0.1, gt=0, lt=1, description="part of `train` that is held out if there is no `val`"
    )

    def text(self) -> str:
        return f"imagefolder:{self.path}{changed_fields(self, 'path', 'workers')}"

    def open(self, image_size: tuple[int, int] = (224, 224)) -> Data:
        """List the files.

        Raises TrainingError: missing-library, missing-folder, no-images, classes (train and val do not agree).
        """
        if find_spec("PIL") is None:
            hint = "pip install 'archdsl[train]'"
            raise _error("missing-library", "reading images needs Pillow, which is not installed", hint, self.path)
        root, set_aside = Path(self.path).expanduser(), list[str]()
        train = _list(root / "train", set_aside)
        if not (root / "val").is_dir():
            return Folder(self, root, train, None, image_size, set_aside)
        val = _list(root / "val", set_aside)
        if extra := sorted(set(val) - set(train)):
            message = f"`{root / 'val'}` has classes that `train` has not: {', '.join(extra[:5])}"
            raise _error("classes", message, "every class folder of val must be in train too", self.path)
        return Folder(self, root, train, val, image_size, set_aside)


class Files:
    """Reads image files by path."""

    def open(self, item: str) -> Image:
        from PIL import Image

        with Image.open(item) as opened:
            return opened.convert("RGB")

    def name(self, item: str) -> str:
        return item


class Folder(Images[str]):
    """An opened image folder. `train` and `val` hold (path, label)."""

    def __init__(
        self,
        source: ImageFolder,
        root: Path,
        train: dict[str, list[str]],
        val: dict[str, list[str]] | None,
        image_size: tuple[int, int],
        set_aside: list[str],
    ):
        self.source, classes = source, sorted(train)
        number = {name: index for index, name in enumerate(classes)}

        def items(part: str, files: dict[str, list[str]]) -> list[tuple[str, int]]:
            return [(str(root / part / name / file), number[name]) for name in sorted(files) for file in files[name]]

        learnt = items("train", train)
        judged = items("val", val) if val is not None else []
        if val is None:
            names = [os.path.relpath(path, root) for path, _ in learnt]
            kept, held = carved(learnt, names, source.val_part)
            learnt, judged = [learnt[place] for place in kept], [learnt[place] for place in held]
            if not judged:
                hint = "add a folder `val`, or images"
                raise _error("no-images", "no class has two images, so none can be held out", hint, source.path)
        super().__init__(
            Files(),
            learnt,
            judged,
            classes,
            image_size,
            workers=source.workers,
            min_area=source.min_area,
            crop=source.crop,
            set_aside=set_aside,
        )

    def key(self) -> str:
        """Fields and a digest of the file names and classes (not of their contents)."""
        root = Path(self.source.path).expanduser()
        names = [f"{os.path.relpath(path, root)} {label}" for path, label in (*self.train, *self.val)]
        digest = hashlib.sha256("\n".join([*names, f"{len(self.train)} to train on"]).encode()).hexdigest()[:16]
        fields = f"min_area={self.source.min_area} crop={self.source.crop} size={'x'.join(map(str, self.image_size))}"
        return f"imagefolder files={digest} {fields}"


def _list(folder: Path, set_aside: list[str]) -> dict[str, list[str]]:
    """Class name -> its image files, sorted. Only names are read; what is no image by its name goes to `set_aside`."""
    if not folder.is_dir():
        hint = "the folder must hold train/<class>/*.jpg and val/<class>/*.jpg"
        raise _error("missing-folder", f"there is no folder `{folder}`", hint, str(folder))
    found: dict[str, list[str]] = {}
    with os.scandir(folder) as classes:
        for entry in sorted(classes, key=lambda each: each.name):
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                set_aside.append(entry.path)
                continue
            files = []
            for file in sorted(os.scandir(entry.path), key=lambda each: each.name):
                if file.name.lower().endswith(ENDINGS) and not file.is_dir():
                    files.append(file.name)
                elif not file.name.startswith("."):
                    set_aside.append(file.path)
            if files:
                found[entry.name] = files
    if not found:
        hint = f"each class needs its own folder with images ({', '.join(ENDINGS)})"
        raise _error("no-images", f"`{folder}` holds no class folder with images", hint, str(folder))
    return found


def _error(rule: str, message: str, hint: str, path: str) -> TrainingError:
    return TrainingError(Problem(at_argument("--data", f"imagefolder:{path}"), rule, message, hint=hint))
