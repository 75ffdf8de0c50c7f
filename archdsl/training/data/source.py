"""The fields of the data sources that come with archdsl, as far as they share them."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from archdsl.errors import TrainingError
from archdsl.language.architecture.model import Interpolation, Mean, Preprocessing, Std
from archdsl.language.text.words import listed
from archdsl.outside_text import printable
from archdsl.training.data.decode import MODES
from archdsl.training.data.views import STATISTICS
from archdsl.training.failures import training_error


class Source(BaseModel):
    """The base of data sources, which add `open` and say which fields `text` leaves out or puts first."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    unsaid: ClassVar[tuple[str, ...]] = ("type",)
    said_first: ClassVar[tuple[str, ...]] = ()

    type: str

    @property
    def address(self) -> str:
        """What `--data` takes for this source with its other fields as they are by default."""
        return self.type

    def text(self) -> str:
        """The address, and ` field=value` for each other field that is not the default."""
        changed = self.model_dump(exclude_defaults=True, exclude=set(self.unsaid))
        names = sorted(changed, key=lambda name: name not in self.said_first)
        return self.address + "".join(f" {name}={changed[name]}" for name in names)

    def error(self, rule: str, message: str, hint: str) -> TrainingError:
        """A problem with these data, at `--data`."""
        return TrainingError.at("--data", self.address, rule, message, hint)


class ImageSource(Source):
    """Images on disk, of which training sees random crops and validation the centre."""

    unsaid = ("type", "path", "workers")

    path: str = Field(description="the folder of the images")
    workers: int = Field(default=2, ge=0, le=256, description="processes that decode images; 0 decodes in this process")
    min_area: float = Field(
        default=0.08, gt=0, le=1, description="smallest part of an image that a training crop may be"
    )
    crop: float = Field(default=0.875, gt=0, le=1, description="part of the shorter side that validation looks at")
    mean: tuple[Mean, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=4,
        strict=False,
        description="of each channel in [0, 1]; null: ImageNet's",
    )
    std: tuple[Std, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=4,
        strict=False,
        description="of each channel in [0, 1]; null: ImageNet's",
    )
    interpolation: Interpolation = Field(default="bicubic", description="how images are resized")
    val_part: float = Field(
        default=0.1, gt=0, lt=1, description="part of each class that is held out if there is no validation set"
    )
    split_seed: int = Field(default=0, ge=0, lt=2**31, description="decides which images are held out")
    exif_orientation: bool = Field(
        default=False, description="turn images as their EXIF data say; torchvision and timm do not"
    )

    @property
    def address(self) -> str:
        return f"{self.type}:{printable(self.path)}"

    def views(self, image_size: tuple[int, int], channels: int) -> str:
        """The fields that decide what is seen of an image, as a part of `Data.key`."""
        size = "x".join(map(str, image_size))
        seen = f" channels={channels}" if channels != 3 else ""
        turned = " exif_orientation=True" if self.exif_orientation else ""
        other = "".join(
            f" {name}={getattr(self, name)}"
            for name in ("mean", "std", "interpolation")
            if getattr(self, name) != type(self).model_fields[name].default
        )
        return f"min_area={self.min_area} crop={self.crop} size={size}{seen}{turned}{other}"

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation by channel; one number stands for all channels.

        Raises: TrainingError when there are others than channels
        """
        found = []
        for name, given, usual in zip(("mean", "std"), (self.mean, self.std), STATISTICS[channels], strict=True):
            numbers = usual if given is None else given * channels if len(given) == 1 else given
            if len(numbers) != channels:
                message = f"{name} has {len(numbers)} numbers, but the network takes {channels} channels"
                raise self.error("wrong-value", message, f"give {channels} numbers, or one for all channels")
            found.append(numbers)
        return found[0], found[1]

    def shown_as(self, trained: Preprocessing) -> tuple[Self, list[str]]:
        """The source with the preprocessing of a training; what its user wrote wins; each difference is a sentence."""
        notes, changed = [], {}
        for name in ("mean", "std", "crop", "interpolation"):
            wanted, ours = getattr(trained, name), getattr(self, name)
            if name not in self.model_fields_set:
                changed[name] = wanted
            elif ours != wanted:
                notes.append(f"{name} is {ours}, as the data say; the network was trained with {wanted}")
        return self.model_copy(update=changed), notes

    def held_out(self, count: int) -> str:
        """What serves as validation where `val_part` of each class is held out, for people."""
        return (
            f"{count} images held out of those to train on: {self.val_part:.4g} of each class,"
            f" split_seed {self.split_seed}"
        )

    def check_channels(self, channels: int) -> None:
        """channels: of the images that a network takes. Raises: TrainingError when no picture has so many"""
        if channels not in MODES:
            message = f"the network takes images of {channels} channels, but pictures have {listed(map(str, MODES))}"
            hint = "set input.channels to one of these; generated images have any number"
            raise training_error("channels", message, hint=hint, path="input.channels")
