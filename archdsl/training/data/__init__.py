"""Labelled images to train on: one file a source, one small protocol, a table of sources by name.

A *source* is what a user writes (`synthetic`, `imagefolder:/data/pets`, or a mapping with `type`): plain fields, no
torch, nothing read from disk. `source.open((height, width))` gives the *data*: batches of images at that size.

To add a source: one file with a pydantic class that has `open` and `text`, and one line in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from archdsl.errors import Place, Problem, SpecError, TrainingError, at_argument
from archdsl.training.fields import read_fields, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.training.timm_parts import Augmentation

SOURCES = {
    "synthetic": "archdsl.training.data.synthetic:SyntheticPairs",  # generated; nothing on disk
    "imagefolder": "archdsl.training.data.imagefolder:ImageFolder",  # train/<class>/*.jpg, val/<class>/*.jpg
    "hf": "archdsl.training.data.saved:SavedDataset",  # a folder that Hugging Face's `save_to_disk` wrote
}
"""Every source by the name it has in YAML and on the command line."""

CHANNELS = 3
"""Of the images of all data."""


class Data(Protocol):
    """Opened data: a training set and a held-out validation set of images [3, H, W] (float32, normalised) with labels.

    num_classes: labels are 0 … num_classes - 1
    image_size: (height, width) in pixels
    num_train, num_val: images in each set
    num_val_independent: how many of the validation images are independent draws; the error bar uses it
    """

    @property
    def num_classes(self) -> int: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def num_train(self) -> int: ...
    @property
    def num_val(self) -> int: ...
    @property
    def num_val_independent(self) -> int: ...

    def key(self) -> str:
        """What these images are, as one line: equal keys mean equal images. Part of a result's cache key."""
        ...

    def train_batches(
        self, batch: int, *, seed: int, epoch: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Full batches (images [batch, 3, H, W], labels [batch]) in an order that `seed` and `epoch` alone decide.

        The images are the caller's to change. share: (rank, num) of several processes: of each batch, only those at
        `processes.share_of(batch, share)`; it is passed only where there are several
        """
        ...

    def val_batches(self, batch: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole validation set in a fixed order; the last batch may be smaller. share: every num-th image only"""
        ...


@runtime_checkable
class Augmentable(Protocol):
    """Data whose single images may be changed in ways that keep their labels."""

    def augmented(self, augmentation: Augmentation) -> Data:
        """The same data with other training images. Errors: TrainingError when timm does not load"""
        ...


class Source(Protocol):
    """What a user named: fields only."""

    def text(self) -> str:
        """The source for people, beside every accuracy: its name, and each field that changes the images or how they
        are judged, where it is not the default. Sources that differ in one of these read differently.
        """
        ...

    def open(self, image_size: tuple[int, int]) -> Data:
        """The data at (height, width) pixels. Raises TrainingError where there are none."""
        ...


def check_channels(channels: int, place: Place | None = None) -> None:
    """channels: of the images that a network takes. Errors: TrainingError when they are not those of the data"""
    if channels != CHANNELS:
        message = f"the network takes images of {channels} channels, but all data have {CHANNELS} (RGB)"
        hint = f"set input.channels={CHANNELS}; other networks can be built and timed, not trained"
        place = place or Place("training")
        raise TrainingError(Problem(place, "channels", message, hint, "input.channels"))


def parse_source(value: str | Mapping[str, Any], place: Place | None = None) -> Source:
    """A source from `name`, `name:path` or a mapping `{type: name, …fields}`.

    place: where the user wrote it, for errors
    Raises SpecError: unknown-name, missing-key, unknown-key, wrong-type, out-of-range.
    """
    place = place or at_argument("--data", str(value))
    if isinstance(value, str):
        name, colon, path = value.partition(":")
        fields: dict[str, Any] = {"path": path} if colon else {}
    else:
        fields = dict(value)
        name = fields.pop("type", None)
        if not isinstance(name, str):
            raise SpecError(
                Problem(place, "missing-key", "data need a `type`", hint=f"one of: {', '.join(SOURCES)}", path="type")
            )
    if name not in SOURCES:
        raise unknown_name("data source", name, list(SOURCES), place)
    module, _, class_name = SOURCES[name].partition(":")
    return cast(Source, read_fields(getattr(import_module(module), class_name), fields, place))
