"""Hugging Face datasets on disk: a folder that `datasets.save_to_disk` wrote. Nothing is downloaded, no code is run."""

from __future__ import annotations

import hashlib
import io
from importlib import import_module
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from archdsl.outside_text import printable
from archdsl.training.data.decode import decode, open_regular
from archdsl.training.data.images import Images, train_val_split
from archdsl.training.data.layout import VAL_NAMES
from archdsl.training.data.source import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

    from archdsl.training.data import Data

LABEL_NAMES = ("label", "labels", "fine_label")

RowKey = tuple[str, int]
"""A split's name and a row in it."""


class SavedDataset(ImageSource):
    """One dataset with the splits `train` and `validation` (or val, valid, test), or a single split.

    Without a split for validation, `val_part` of each class is held out, chosen by digest of `split_seed` and the row
    numbers. The images are the column of that kind, the labels the column `label`; others can be named. Views are those
    of image folders.
    """

    said_first = ("image", "label")

    type: Literal["hf"] = "hf"
    image: str | None = Field(default=None, description="column of the images; by default the one that holds images")
    label: str | None = Field(default=None, description=f"column of the labels; by default {', '.join(LABEL_NAMES)}")

    def open(self, image_size: tuple[int, int] = (224, 224), channels: int = 3) -> Data:
        """Read the columns' names and all labels.

        Raises TrainingError: channels, missing-library, missing-folder, no-images, missing-key (a column), classes.
        """
        self.check_channels(channels)
        splits = _splits(self)
        if "train" not in splits:
            message = f"`{self.path}` has the splits {', '.join(splits)}, but none called train"
            raise self.error("missing-key", message, "save it with a split `train`")
        train = splits["train"]
        image, label = self._image_column(train), self._label_column(train)
        classes, train_items = _labelled(self, "train", train, label)
        val_name = next((name for name in VAL_NAMES if name in splits), None)
        if val_name is not None:
            val_items = _labelled(self, val_name, splits[val_name], label, classes)[1]
            unused = "".join(f"; the split {name} is not used" for name in splits if name not in ("train", val_name))
            validation = f"the {len(val_items)} images of the split {val_name}{unused}"
        else:
            rows = [str(row) for (_, row), _ in train_items]
            kept, held = train_val_split(train_items, rows, self.val_part, self.split_seed)
            train_items, val_items = [train_items[place] for place in kept], [train_items[place] for place in held]
            validation = self.held_out(len(val_items))
        if not train_items or not val_items:
            raise self.error("no-images", f"`{self.path}` has no images to train on and to validate on", "add some")
        prints = " ".join(f"{name}={getattr(split, '_fingerprint', len(split))}" for name, split in splits.items())
        reader = RowReader(self, image, channels)
        return Saved(self, reader, train_items, val_items, classes, image_size, prints, validation)

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
        raise self.error("missing-key", message, hint)


class RowReader:
    """Reads images out of a dataset on disk; each process maps the file anew."""

    def __init__(self, source: SavedDataset, column: str, channels: int = 3):
        self.source, self.column, self.channels = source, column, channels
        self._splits: dict[str, Any] | None = None

    def open(self, item: RowKey) -> Image:
        return decode(io.BytesIO(self.read(item)), self.channels, exif_orientation=self.source.exif_orientation)

    def read(self, item: RowKey) -> bytes:
        if self._splits is None:
            undecoded = _library(self.source).Image(decode=False)
            splits = _splits(self.source).items()
            self._splits = {name: split.cast_column(self.column, undecoded) for name, split in splits}
        split, row = item
        cell = self._splits[split][row][self.column]
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        with open_regular(cell["path"]) as file:
            return file.read()

    def listed(self, item: RowKey) -> tuple[str, int]:
        return f"{item[0]} {item[1]}", 0

    def name(self, item: RowKey) -> str:
        return f"{self.source.path} {item[0]}[{item[1]}]"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_splits": None}


class Saved(Images[RowKey]):
    """An opened dataset of Hugging Face's."""

    def __init__(
        self,
        source: SavedDataset,
        rows: RowReader,
        train: list[tuple[RowKey, int]],
        val: list[tuple[RowKey, int]],
        classes: list[str],
        image_size: tuple[int, int],
        prints: str,
        validation: str,
    ):
        self.column, self.prints = rows.column, prints
        super().__init__(source, rows, train, val, classes, image_size, validation)

    def key(self) -> str:
        """Fields, the column of the images, and a digest of the library's fingerprints and of which rows have which
        label.
        """
        rows = f"{self.prints} {self.train} {self.val}"
        digest = hashlib.sha256(rows.encode()).hexdigest()[:16]
        return f"hf rows={digest} image={self.column} {self.views()}"

    @property
    def told_by(self) -> str:
        return f"{self.prints} {self.column}"


def _splits(source: SavedDataset) -> dict[str, Any]:
    datasets, folder = _library(source), Path(expanduser(source.path))
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises whatever it meets in damaged files
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        message = f"`{folder}` is no dataset that save_to_disk wrote: {why}"
        raise source.error("missing-folder", message, "for folders of images, write imagefolder:DIR") from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _labelled(
    source: SavedDataset, name: str, split: Any, column: str, classes: list[str] | None = None
) -> tuple[list[str], list[tuple[RowKey, int]]]:
    """The classes, and each row with its label: the place of its class's name among `classes`, those of train.

    A column holds names, or numbers of the names that it brings along, in an order of its own.
    """
    values, own = list(split[column]), getattr(split.features[column], "names", None)
    if own:
        values = [own[value] if isinstance(value, int) and 0 <= value < len(own) else value for value in values]
    odd = [value for value in values if not isinstance(value, int | float | str)]
    if odd:
        message = f"the split {name} has labels that are neither numbers nor names: {printable(repr(odd[0])[:60])}"
        raise source.error("classes", message, f"`{column}` holds one class of each image; name another column")
    known = (
        classes or own or [str(value) for value in sorted(set(values), key=lambda value: (str(value) == value, value))]
    )
    number = {each: index for index, each in enumerate(known)}
    labels = [number.get(str(value), -1) for value in values]
    wrong = [value for value, label in zip(values, labels, strict=True) if label < 0]
    if wrong:
        message = f"the split {name} has labels that are no class of train: {wrong[0]!r}"
        raise source.error("classes", message, "give both splits the same labels")
    return list(known), [((name, row), label) for row, label in enumerate(labels)]


def _library(source: SavedDataset) -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        message = f"reading datasets of Hugging Face needs their library `datasets`, which does not load ({error})"
        raise source.error("missing-library", message, "pip install 'archdsl[hf]'") from error
