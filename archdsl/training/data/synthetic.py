"""Ordered pairs: generated images whose label cannot be read without connecting the two halves of the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from archdsl.training.data.source import Source
from archdsl.training.processes import share_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from archdsl.training.data import Data

GENERATOR = 1
"""Version of the generator: raised whenever the same fields would give other images. Part of the cache key."""

NAMES = ("red", "green", "blue", "yellow", "magenta", "cyan")
COLOURS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)], dtype=np.float32)
MAX_BYTES = 2 << 30


class SyntheticPairs(Source):
    """One coloured square anywhere in the left half, one of another colour anywhere in the right half, under noise.

    The label is the ordered pair (left colour, right colour): colours * (colours - 1) classes, 12 by default.

    **The ceiling of a network that never connects the halves is exactly 50 %.** Call s the swap of the two halves of an
    image (pixels move by half the width, nothing else changes). Squares and noise are drawn alike in both halves, so
    s(x) is as likely an image as x; and its label is another one, since the colours differ. Suppose a network's windows
    do not cross the midline and nothing tells it where a window lies: swapping the halves only permutes its windows,
    and after mean pooling its answer to x and to s(x) is the same. It can be right about one of the two at most:
    accuracy <= 1/2. Knowing *which* two colours there are and guessing the order reaches 1/2. The validation set holds
    both x and s(x) for every x, so that the ceiling holds for the measured number, not only on average.

    What breaks the argument, because it leaks position: zero-padded convolutions, absolute position embeddings, norms
    with weights per position, shifted windows (that is the connection), windows that do not divide half the map.
    The squares lie at any pixel, not on the patch grid, which would let a network peek.

    What it is not: a substitute for natural images. It asks one thing, whether information travels between windows.

    square: edge of a square as a fraction of the image width; noise: standard deviation, colours have amplitude 1
    Source: our own
    """

    type: Literal["synthetic"] = "synthetic"
    num_train: int = Field(default=2048, ge=1, le=1_000_000, description="training images")
    num_val: int = Field(
        default=1024, ge=2, le=1_000_000, multiple_of=2, description="validation images: pairs x, swapped x"
    )
    colours: int = Field(default=4, ge=2, le=len(COLOURS), description="colours to choose from")
    square: float = Field(default=0.25, gt=0, le=0.5, description="edge of a square, as a fraction of the image width")
    noise: float = Field(
        default=0.3, ge=0, le=10, description="standard deviation of the pixel noise; colours are 0 and 1"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="which training and validation set")

    @property
    def num_classes(self) -> int:
        """Ordered pairs of different colours."""
        return self.colours * (self.colours - 1)

    def open(self, image_size: tuple[int, int] = (32, 32), channels: int = 3) -> Data:
        """Draw both sets at (height, width) pixels, with any number of channels: see `palette`.

        Raises TrainingError when the width is odd or the sets would take more than 2 GiB.
        """
        height, width = image_size
        edge = self.edge(width)
        if width % 2 or edge > height:
            message = f"the image width must be even and hold the square, but got {height}x{width} px"
            raise self.error("out-of-range", message, "use 32x32 px, or fewer images")
        size_bytes = (self.num_train + self.num_val) * channels * height * width * 4
        if size_bytes > MAX_BYTES:
            message = f"the images would take {size_bytes / 2**30:.1f} GiB of memory, more than 2 GiB"
            raise self.error("out-of-range", message, "use 32x32 px, or fewer images")
        return Pairs(self, height, width, channels)

    def edge(self, width: int) -> int:
        """Edge of a square in pixels: 8 at a width of 32."""
        return max(1, round(self.square * width))


class Pairs:
    """The images of a `SyntheticPairs`, drawn. Layout: images [N, C, H, W] float32, labels [N] int64."""

    validation = ""

    def __init__(self, source: SyntheticPairs, height: int, width: int, channels: int = 3):
        import torch

        self.channels = channels
        self.source, self.image_size, self.num_classes = source, (height, width), source.num_classes
        self.num_train, self.num_val, self.num_val_independent = source.num_train, source.num_val, source.num_val // 2
        draws = [np.random.Generator(np.random.PCG64([GENERATOR, source.seed, part])) for part in (0, 1)]
        train, train_labels = draw_pairs(source, source.num_train, height, width, draws[0], channels)
        half, half_labels = draw_pairs(source, source.num_val // 2, height, width, draws[1], channels)
        val, val_labels = swap_halves(half, half_labels, source.colours)
        self.train = torch.from_numpy(train), torch.from_numpy(train_labels)
        self.val = (
            torch.from_numpy(np.concatenate([half, val])),
            torch.from_numpy(np.concatenate([half_labels, val_labels])),
        )

    def key(self) -> str:
        height, width = self.image_size
        fields = " ".join(f"{name}={value}" for name, value in sorted(self.source.model_dump().items()))
        channels = f" channels={self.channels}" if self.channels != 3 else ""
        return f"{fields} generator={GENERATOR} size={height}x{width}{channels}"

    @property
    def classes(self) -> list[str]:
        """The colours of each class, left and right."""
        left, right = colours_of(np.arange(self.num_classes), self.source.colours)
        return [f"{NAMES[one]} {NAMES[other]}" for one, other in zip(left, right, strict=True)]

    def fingerprint(self) -> str:
        return ""

    def sample(self, count: int) -> Tensor:
        return self.train[0][:count].clone()

    def train_batches(
        self, batch: int, *, seed: int, epoch: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        images, labels = self.train
        order = torch.from_numpy(np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(labels)))
        for start in range(0, len(labels) - batch + 1, batch):
            chosen = order[start : start + batch]
            if share != (0, 1):
                chosen = chosen[share_of(batch, share)]
            yield images[chosen], labels[chosen]

    def val_batches(self, batch: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = (whole[share[0] :: share[1]] for whole in self.val)
        for start in range(0, len(labels), batch):
            yield images[start : start + batch], labels[start : start + batch]


def draw_pairs(
    source: SyntheticPairs, num: int, height: int, width: int, draw: np.random.Generator, channels: int = 3
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`num` images [num, channels, height, width], their labels [num]; classes are balanced to within one image."""
    edge, half = source.edge(width), width // 2
    labels = draw.permutation(np.arange(num, dtype=np.int64) % source.num_classes)
    left, right = colours_of(labels, source.colours)
    tops = draw.integers(0, height - edge + 1, size=(2, num))
    lefts = draw.integers(0, half - edge + 1, size=(2, num)) + np.array([[0], [half]])
    images = draw.standard_normal((num, channels, height, width), dtype=np.float32) * np.float32(source.noise)
    colours = palette(channels)
    for which, colour in enumerate((left, right)):
        rows = _span(tops[which], edge, height)
        columns = _span(lefts[which], edge, width)
        images += colours[colour][:, :, None, None] * rows[:, None, :, None] * columns[:, None, None, :]
    return images, labels


def palette(channels: int) -> NDArray[np.float32]:
    """The colours [6, channels]: below three channels as shades, beyond three with nothing in the others."""
    if channels < 3:
        shades = np.arange(1, len(COLOURS) + 1, dtype=np.float32) / len(COLOURS)
        return np.stack([shades, 1 - shades], axis=1)[:, :channels].astype(np.float32)
    return np.pad(COLOURS, ((0, 0), (0, channels - 3)))


def swap_halves(
    images: NDArray[np.float32], labels: NDArray[np.int64], colours: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The same images with left and right half exchanged (not mirrored), and the labels they then have."""
    left, right = colours_of(labels, colours)
    return np.roll(images, images.shape[3] // 2, axis=3), label_of(right, left, colours)


def label_of(left: NDArray[np.int64], right: NDArray[np.int64], colours: int) -> NDArray[np.int64]:
    """The class of the ordered pair (left colour, right colour)."""
    return left * (colours - 1) + (right - left - 1) % colours


def colours_of(labels: NDArray[np.int64], colours: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(left colour, right colour) of each class: the inverse of `label_of`."""
    left, step = labels // (colours - 1), labels % (colours - 1)
    return left, (left + step + 1) % colours


def _span(start: NDArray[np.int64], length: int, total: int) -> NDArray[np.float32]:
    """Rows [N, total]: 1 from `start` on for `length` places, else 0."""
    at = np.arange(total)
    return ((at >= start[:, None]) & (at < start[:, None] + length)).astype(np.float32)
