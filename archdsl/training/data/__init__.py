"""Labelled images to train on: one file a source, one small protocol, a table of sources by name.

A *source* is what a user writes (`synthetic`, `imagefolder:/data/pets`, or a mapping with `type`): plain fields, no
torch, nothing read from disk. `source.open((height, width))` gives the *data*: batches of images at that size.

To add a source: one file with a pydantic class that has `open` and `text`, and one line in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from os.path import expanduser, isabs, join, normpath
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from archdsl.errors import Place, at_argument
from archdsl.language.architecture.read import read_fields
from archdsl.language.text.files import home_of
from archdsl.language.text.node import Mark, fail, node_of
from archdsl.suggestions import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.training.timm_parts import Augmentation

SOURCES = {
    "synthetic": "archdsl.training.data.synthetic:SyntheticPairs",  # generated; nothing on disk
    "imagefolder": "archdsl.training.data.imagefolder:ImageFolder",  # train/<class>/*.jpg, val/<class>/*.jpg
    "hf": "archdsl.training.data.saved:SavedDataset",  # a folder that Hugging Face's `save_to_disk` wrote
}
"""Every source by the name it has in YAML and on the command line."""


class Data(Protocol):
    """Opened data: a training set and a held-out validation set of images [C, H, W] (float32, normalised) with labels.

    num_classes: labels are 0 … num_classes - 1
    image_size: (height, width) in pixels
    num_train, num_val: images in each set
    num_val_independent: how many of the validation images are independent draws; the error bar uses it
    validation: what serves as validation, for people; '' where they are generated
    classes: the names of the classes, by label
    """

    @property
    def num_classes(self) -> int: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def num_train(self) -> int: ...
    @property
    def num_val(self) -> int: ...
    @property
    def num_val_independent(self) -> int: ...
    @property
    def validation(self) -> str: ...

    def key(self) -> str:
        """What these images are, as one line: equal keys mean equal images. Part of a result's cache key."""
        ...

    def fingerprint(self) -> str:
        """Which images there are on the disk, as one line; '' where there are none. Unlike `key` it says nothing of
        what is done to them.
        """
        ...

    def train_batches(
        self, batch: int, *, seed: int, epoch: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Full batches (images [batch, C, H, W], labels [batch]) in an order that `seed` and `epoch` alone decide.

        The images are the caller's to change. share: (rank, num) of several processes: of each batch, only those at
        `processes.share_of(batch, share)`; it is passed only where there are several
        """
        ...

    def val_batches(self, batch: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole validation set in a fixed order; the last batch may be smaller. share: every num-th image only"""
        ...

    def sample(self, count: int) -> Tensor:
        """At most `count` images of the training set, from all parts of it, as those for validation are seen:
        [n, C, H, W], on the CPU.
        """
        ...


@runtime_checkable
class Augmentable(Protocol):
    """Data whose single images may be changed in ways that keep their labels."""

    def augmented(self, augmentation: Augmentation) -> Data:
        """The same data with other training images. Errors: TrainingError when timm does not load"""
        ...


class DataSource(Protocol):
    """Where images come from, as a user names it: fields only, nothing is opened."""

    def text(self) -> str:
        """The source as reports show it beside every accuracy: its name, and each field that changes the images or the
        validation, where it is not the default. Sources that differ in one of these have different texts.
        """
        ...

    def open(self, image_size: tuple[int, int], channels: int = 3) -> Data:
        """The data at (height, width) pixels, with the channels that the network takes.

        Raises: TrainingError where there are none, or not with so many channels
        """
        ...


def in_folder(value: str | Mapping[str, Any], folder: str) -> str | dict[str, Any]:
    """A source as the user wrote it, its relative path made one below `folder`."""
    if isinstance(value, str):
        name, colon, path = value.partition(":")
        return f"{name}:{_below(folder, path)}" if colon and path else value
    given = value.get("path")
    return {**value, "path": _below(folder, given)} if isinstance(given, str) and given else dict(value)


def _below(folder: str, path: str) -> str:
    return path if isabs(expanduser(path)) else normpath(join(folder, path))


def parse_source(value: str | Mapping[str, Any], place: Place | None = None) -> DataSource:
    """A source of images from `name`, `name:path` or a mapping `{type: name, …fields}`. Nothing is read from disk.

    Args:   place: where the user wrote it, for errors. A relative path is relative to its file; to the working folder
                   where it is no file
    Raises: SpecError: `unknown-name`, `missing-key`, `unknown-key`, `wrong-type`, `out-of-range`

    Example:
        >>> from archdsl.training import parse_source
        >>> parse_source("imagefolder:/data/pets").text()
        'imagefolder:/data/pets'
        >>> data = parse_source({"type": "synthetic", "num_train": 64, "num_val": 32}).open((32, 32))
        >>> data.num_train, data.num_classes
        (64, 12)
    """
    place = place or at_argument("--data", str(value))
    home = home_of(place.file)
    if home is not None and home.folder is not None:
        value = in_folder(value, home.folder)
    mark = Mark.at(place)
    known = f"one of: {', '.join(SOURCES)}"
    if isinstance(value, str):
        name, colon, path = value.partition(":")
        fields: dict[str, Any] = {"path": path} if colon else {}
    else:
        fields = dict(value)
        name = fields.pop("type", None)
        if not isinstance(name, str):
            raise fail(mark, "missing-key", "data need a `type`", known, "type")
    if name not in SOURCES:
        raise fail(mark, "unknown-name", f"there is no data source `{name}`", did_you_mean(name, SOURCES) or known)
    module, _, class_name = SOURCES[name].partition(":")
    source = read_fields(getattr(import_module(module), class_name), node_of(fields, mark), f"the data source `{name}`")
    return cast(DataSource, source)
