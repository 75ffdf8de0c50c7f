"""Images in class folders: `train/<class>/*.jpg` and `val/<class>/*.jpg`, the layout ImageNet is kept in."""

from __future__ import annotations

import hashlib
import logging
import os
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from archdsl.errors import Problem, TrainingError, at_argument

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from archdsl.training.data import Data

log = logging.getLogger(__name__)

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels in [0, 1], per channel: the convention of torchvision and timm
STD = (0.229, 0.224, 0.225)
MAX_NAMED = 10  # corrupt files named in the log of one data set; all are counted


class ImageFolder(BaseModel):
    """A folder with `train` and `val`, each with one folder a class; classes are numbered in the order of their names.

    Training images: a random part of `min_area` to all of the image, at an aspect ratio of 3/4 to 4/3, resized, flipped
    left to right half of the time. Validation images: resized so that the shorter side is size / `crop`, then the
    centre. Both normalised with ImageNet's mean and standard deviation. Heavier augmentation replaces `train_view`.

    A file that cannot be decoded is skipped, logged by name and counted in `num_corrupt`; an epoch is as many batches
    as if it were there, since another image of the set takes its place (in training) or it is left out (in validation).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["imagefolder"] = "imagefolder"
    path: str = Field(description="the folder that holds `train` and `val`")
    workers: int = Field(default=2, ge=0, le=256, description="processes that decode images; 0 decodes in this process")
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="smallest part of an image that a training crop may be"
    )
    crop: float = Field(default=0.875, gt=0, le=1, description="part of the shorter side that validation looks at")

    def text(self) -> str:
        return f"imagefolder:{self.path}"

    def open(self, image_size: tuple[int, int] = (224, 224)) -> Data:
        """List the files.

        Raises TrainingError: missing-library, missing-folder, no-images, classes (train and val do not agree).
        """
        if find_spec("PIL") is None:
            hint = "pip install 'archdsl[train]'"
            raise _error("missing-library", "reading images needs Pillow, which is not installed", hint, self.path)
        root = Path(self.path).expanduser()
        train, val = _list(root / "train"), _list(root / "val")
        if extra := sorted(set(val) - set(train)):
            message = f"`{root / 'val'}` has classes that `train` has not: {', '.join(extra[:5])}"
            raise _error("classes", message, "every class folder of val must be in train too", self.path)
        return Folder(self, root, train, val, image_size)


class Folder:
    """An opened image folder."""

    def __init__(
        self,
        source: ImageFolder,
        root: Path,
        train: dict[str, list[str]],
        val: dict[str, list[str]],
        image_size: tuple[int, int],
    ):
        self.source, self.image_size, self.classes = source, image_size, sorted(train)
        self.num_classes = len(self.classes)
        number = {name: index for index, name in enumerate(self.classes)}
        self.train = [(str(root / "train" / c / f), number[c]) for c in self.classes for f in train[c]]
        self.val = [(str(root / "val" / c / f), number[c]) for c in sorted(val) for f in val[c]]
        self.num_train = len(self.train)
        self.corrupt: set[str] = set()

    @property
    def num_val(self) -> int:
        """Validation images, without those that were found to be corrupt."""
        return sum(path not in self.corrupt for path, _ in self.val)

    @property
    def num_val_independent(self) -> int:
        return self.num_val

    @property
    def num_corrupt(self) -> int:
        """Files that could not be decoded so far."""
        return len(self.corrupt)

    def key(self) -> str:
        """Fields and a digest of the file names and classes (not of their contents)."""
        root = self.source.path
        names = "\n".join(f"{os.path.relpath(path, root)} {label}" for path, label in (*self.train, *self.val))
        fields = f"min_area={self.source.min_area} crop={self.source.crop} size={'x'.join(map(str, self.image_size))}"
        return f"imagefolder files={hashlib.sha256(names.encode()).hexdigest()[:16]} {fields}"

    def train_batches(self, batch: int, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = random.Random(f"{seed} {epoch}").sample(range(len(self.train)), len(self.train))
        views = Views([(*self.train[i], f"{seed} {epoch} {i}") for i in order], self.image_size, self.source)
        pending: list[tuple[Tensor, int]] = []
        spare: list[tuple[Tensor, int]] = []
        for decoded in self._loaded(views, batch):
            good = [(view, label) for view, label, _ in decoded if view is not None]
            spare = good or spare
            pending += good + [spare[i % len(spare)] for i in range(len(decoded) - len(good) if spare else 0)]
            while len(pending) >= batch:
                yield _stack(pending[:batch])
                pending = pending[batch:]

    def val_batches(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        views = Views([(path, label, None) for path, label in self.val], self.image_size, self.source)
        for decoded in self._loaded(views, batch):
            if good := [(view, label) for view, label, _ in decoded if view is not None]:
                yield _stack(good)

    def _loaded(self, views: Views, batch: int) -> Iterator[list[tuple[Tensor | None, int, str]]]:
        """Decoded images in order, `batch` at a time; corrupt ones are noted here, in the parent process."""
        from torch.utils.data import DataLoader

        loader: DataLoader[Any] = DataLoader(
            views,  # type: ignore[arg-type]  # any object with __getitem__ and __len__ will do
            batch_size=batch,
            num_workers=self.source.workers,
            collate_fn=list,
            multiprocessing_context="spawn" if self.source.workers else None,
        )
        for decoded in loader:
            for view, _, path in decoded:
                if view is None and path not in self.corrupt:
                    self.corrupt.add(path)
                    if len(self.corrupt) <= MAX_NAMED:
                        log.warning("skipped `%s`: it cannot be decoded as an image", path)
                    elif len(self.corrupt) == MAX_NAMED + 1:
                        log.warning("more corrupt images follow; they are counted, not named")
            yield decoded


class Views:
    """What a loader's worker process runs: item i is file i, decoded and cut; (None, label, path) if it is corrupt.

    items: (path, label, random seed of the training view, or None for the validation view)
    """

    def __init__(self, items: list[tuple[str, int, str | None]], image_size: tuple[int, int], source: ImageFolder):
        self.items, self.image_size, self.source = items, image_size, source

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor | None, int, str]:
        from PIL import Image

        path, label, seed = self.items[index]
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # all that PIL's decoders raise
            return None, label, path
        if seed is None:
            return _normalised(val_view(image, self.image_size, self.source.crop)), label, path
        return _normalised(train_view(image, self.image_size, self.source.min_area, random.Random(seed))), label, path


def train_view(image: Image, image_size: tuple[int, int], min_area: float, draw: random.Random) -> Image:
    """A random crop, resized to (height, width), flipped half of the time.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, with the aspect ratios of its section on training.
    """
    from PIL import Image as pil

    height, width = image_size
    crop_width, crop_height = image.size
    for _ in range(10):
        area = draw.uniform(min_area, 1.0) * image.width * image.height
        aspect = (3 / 4) ** draw.uniform(-1.0, 1.0)
        cut_width, cut_height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < cut_width <= image.width and 0 < cut_height <= image.height:
            crop_width, crop_height = cut_width, cut_height
            break
    left, top = draw.randint(0, image.width - crop_width), draw.randint(0, image.height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    view = image.resize((width, height), pil.Resampling.BICUBIC, box=box)
    return view.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else view


def val_view(image: Image, image_size: tuple[int, int], crop: float) -> Image:
    """The centre (height, width) after resizing so that it is `crop` of what is seen along the tighter side."""
    from PIL import Image as pil

    height, width = image_size
    scale = min(image.width / width, image.height / height) * crop
    cut_width, cut_height = width * scale, height * scale
    left, top = (image.width - cut_width) / 2, (image.height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return image.resize((width, height), pil.Resampling.BICUBIC, box=box)


def _normalised(image: Image) -> Tensor:
    """PIL image -> [3, H, W] float32 with ImageNet's mean and standard deviation taken out."""
    import numpy as np
    import torch

    pixels = np.asarray(image, dtype=np.float32) / 255.0
    return torch.from_numpy((pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).permute(2, 0, 1)


def _stack(views: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    import torch

    return torch.stack([view for view, _ in views]), torch.tensor([label for _, label in views])


def _list(folder: Path) -> dict[str, list[str]]:
    """Class name -> its image files, sorted. Only names are read."""
    if not folder.is_dir():
        hint = "the folder must hold train/<class>/*.jpg and val/<class>/*.jpg"
        raise _error("missing-folder", f"there is no folder `{folder}`", hint, str(folder))
    found: dict[str, list[str]] = {}
    with os.scandir(folder) as classes:
        for entry in classes:
            if entry.is_dir() and not entry.name.startswith("."):
                files = sorted(f.name for f in os.scandir(entry.path) if f.name.lower().endswith(ENDINGS))
                if files:
                    found[entry.name] = files
    if not found:
        hint = f"each class needs its own folder with images ({', '.join(ENDINGS)})"
        raise _error("no-images", f"`{folder}` holds no class folder with images", hint, str(folder))
    return found


def _error(rule: str, message: str, hint: str, path: str) -> TrainingError:
    return TrainingError(Problem(at_argument("--data", f"imagefolder:{path}"), rule, message, hint=hint))
