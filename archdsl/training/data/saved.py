"""Hugging Face datasets on disk: a folder that `datasets.save_to_disk` wrote. Nothing is downloaded, no code is run."""

from __future__ import annotations

import hashlib
import io
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from archdsl.errors import Problem, TrainingError, at_argument
from archdsl.training.data.images import Images, carved
from archdsl.training.fields import changed_fields

if TYPE_CHECKING:
    from PIL.Image import Image

    from archdsl.training.data import Data

VAL_NAMES = ("validation", "val", "valid", "test")
LABEL_NAMES = ("label", "labels", "fine_label")

Row = tuple[str, int]
"""A split's name and a row in it."""


class SavedDataset(BaseModel):
    """One dataset with the splits `train` and `validation` (or val, valid, test), or a single split.

    Without a split for validation, `val_part` of each class is held out, chosen by digest of the row numbers. The
    images are the column of that kind, the labels the column `label`; others can be named. Views are those of image
    folders.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["hf"] = "hf"
    path: str = Field(description="the folder that `save_to_disk` wrote")
    image: str | None = Field(default=None, description="column of the images; by default the one that holds images")
    label: str | None = Field(default=None, description=f"column of the labels; by default {', '.join(LABEL_NAMES)}")
    workers: int = Field(default=2, ge=0, le=256, description="processes that decode images; 0 decodes in this process")
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="smallest part of an image that a training crop may be"
    )
    crop: float = Field(default=0.875, gt=0, le=1, description="part of the shorter side that validation looks at")
    val_part: float = Field(
        default=0.1, gt=0, lt=1, description="part of `train` that is held out if there is no other"
    )

    def text(self) -> str:
        return f"hf:{self.path}{changed_fields(self, 'path', 'workers')}"

    def open(self, image_size: tuple[int, int] = (224, 224)) -> Data:
        """Read the columns' names and all labels.

        Raises TrainingError: missing-library, missing-folder, no-images, missing-key (a column), classes.
        """
        splits = _splits(self)
        if "train" not in splits:
            message = f"`{self.path}` has the splits {', '.join(splits)}, but none called train"
            raise _error("missing-key", message, "save it with a split `train`", self.path)
        train = splits["train"]
        image, label = self._image_column(train), self._label_column(train)
        classes, learnt = _labelled("train", train, label, self.path)
        val_name = next((name for name in VAL_NAMES if name in splits), None)
        if val_name is not None:
            judged = _labelled(val_name, splits[val_name], label, self.path, classes)[1]
        else:
            kept, held = carved(learnt, [str(row) for (_, row), _ in learnt], self.val_part)
            learnt, judged = [learnt[place] for place in kept], [learnt[place] for place in held]
        if not learnt or not judged:
            raise _error("no-images", f"`{self.path}` has no images to train on and to judge by", "add some", self.path)
        prints = " ".join(f"{name}={getattr(split, '_fingerprint', len(split))}" for name, split in splits.items())
        return Saved(self, Rows(self.path, image), learnt, judged, classes, image_size, prints)

    def _image_column(self, split: Any) -> str:
        found = [name for name, kind in split.features.items() if type(kind).__name__ == "Image"]
        return self._column("image", self.image, found, split)

    def _label_column(self, split: Any) -> str:
        return self._column("label", self.label, [name for name in LABEL_NAMES if name in split.features], split)

    def _column(self, field: str, asked: str | None, found: list[str], split: Any) -> str:
        if asked is not None and asked in split.features:
            return asked
        if asked is None and len(found) == 1:
            return found[0]
        what = f"no column `{asked}`" if asked is not None else "no" if not found else "more than one"
        message = f"`{self.path}` has {what}" + ("" if asked is not None else f" column of {field}s")
        hint = f"name it: {{type: hf, path: …, {field}: …}}; columns: {', '.join(split.features)}"
        raise _error("missing-key", message, hint, self.path)


class Rows:
    """Reads images out of a dataset on disk; each process maps the file anew."""

    def __init__(self, path: str, column: str):
        self.path, self.column = path, column
        self._splits: dict[str, Any] | None = None

    def open(self, item: Row) -> Image:
        from PIL import Image

        if self._splits is None:
            datasets = _library(self.path)
            self._splits = {
                name: split.cast_column(self.column, datasets.Image(decode=False))
                for name, split in _split_up(datasets.load_from_disk(str(Path(self.path).expanduser()))).items()
            }
        split, row = item
        cell = self._splits[split][row][self.column]
        data = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            return opened.convert("RGB")

    def name(self, item: Row) -> str:
        return f"{self.path} {item[0]}[{item[1]}]"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_splits": None}


class Saved(Images[Row]):
    """An opened dataset of Hugging Face's."""

    def __init__(
        self,
        source: SavedDataset,
        rows: Rows,
        train: list[tuple[Row, int]],
        val: list[tuple[Row, int]],
        classes: list[str],
        image_size: tuple[int, int],
        prints: str,
    ):
        self.source, self.column, self.prints = source, rows.column, prints
        super().__init__(
            rows,
            train,
            val,
            classes,
            image_size,
            workers=source.workers,
            min_area=source.min_area,
            crop=source.crop,
        )

    def key(self) -> str:
        """Fields, the column of the images, and a digest of the library's fingerprints and of which rows have which
        label.
        """
        rows = f"{self.prints} {self.train} {self.val}"
        digest = hashlib.sha256(rows.encode()).hexdigest()[:16]
        fields = f"min_area={self.source.min_area} crop={self.source.crop} size={'x'.join(map(str, self.image_size))}"
        return f"hf rows={digest} image={self.column} {fields}"


def _splits(source: SavedDataset) -> dict[str, Any]:
    datasets = _library(source.path)
    folder = Path(source.path).expanduser()
    try:
        return _split_up(datasets.load_from_disk(str(folder)))
    except (OSError, ValueError, KeyError) as error:
        message = f"`{folder}` is no dataset that save_to_disk wrote: {str(error).splitlines()[0][:200]}"
        raise _error("missing-folder", message, "for folders of images, write imagefolder:DIR", source.path) from error


def _split_up(loaded: Any) -> dict[str, Any]:
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _labelled(
    name: str, split: Any, column: str, path: str, classes: list[str] | None = None
) -> tuple[list[str], list[tuple[Row, int]]]:
    """The classes, and each row with its label: the place of its class's name among `classes`, those of train.

    A column holds names, or numbers of the names that it brings along, in an order of its own.
    """
    values, own = list(split[column]), getattr(split.features[column], "names", None)
    if own:
        values = [own[value] if isinstance(value, int) and 0 <= value < len(own) else value for value in values]
    known = classes or own or [str(value) for value in sorted(set(values))]
    number = {each: index for index, each in enumerate(known)}
    labels = [number.get(str(value), -1) for value in values]
    wrong = [value for value, label in zip(values, labels, strict=True) if label < 0]
    if wrong:
        message = f"the split {name} has labels that are no class of train: {wrong[0]!r}"
        raise _error("classes", message, "give both splits the same labels", path)
    return list(known), [((name, row), label) for row, label in enumerate(labels)]


def _library(path: str) -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        message = f"reading datasets of Hugging Face needs their library `datasets`, which does not load ({error})"
        raise _error("missing-library", message, "pip install 'archdsl[hf]'", path) from error


def _error(rule: str, message: str, hint: str, path: str) -> TrainingError:
    return TrainingError(Problem(at_argument("--data", f"hf:{path}"), rule, message, hint=hint))
