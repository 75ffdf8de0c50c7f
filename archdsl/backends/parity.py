"""The numeric check: an artefact is run on images, and its outputs are compared with those of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archdsl.backends.initial import Array
from archdsl.backends.precision import PRECISIONS, Precision


def probe_images(shape: tuple[int, ...], count: int, seed: int = 0) -> Array:
    """[count, *shape] float32: images [C, H, W] that differ in colour, in large shapes and in noise.

    Pure noise would not do: its mean over an image hardly varies, and so neither do a network's logits. It will do for
    what is no image, the tokens that a segment of a network is given.
    """
    draw = np.random.default_rng(seed)
    if len(shape) != 3:
        return draw.standard_normal((count, *shape)).astype(np.float32)
    channels, height, width = shape
    colour = draw.standard_normal((count, channels, 1, 1))
    coarse = draw.standard_normal((count, channels, 5, 5))
    rows, columns = (np.minimum(np.arange(side) * 5 // side, 4) for side in (height, width))
    noise = 0.5 * draw.standard_normal((count, channels, height, width))
    return (colour + coarse[:, :, rows[:, None], columns] + noise).astype(np.float32)


def in_batches(run: Callable[[Array], Array], images: Array, batch: int | None) -> Array:
    """What `run` gives for images [N, C, H, W], `batch` at once; a last batch that is not full repeats images.

    batch: None tries two sizes: first one image, then all the others and two more
    """
    if batch is None:
        rest = np.resize(np.roll(images, -1, axis=0), (len(images) + 1, *images.shape[1:]))
        return np.concatenate([run(images[:1]), run(rest)])[: len(images)]
    size = -(-len(images) // batch) * batch
    filled = np.resize(images, (size, *images.shape[1:]))
    found = [run(filled[i : i + batch]) for i in range(0, size, batch)]
    return (np.concatenate(found) if len(found) > 1 else found[0])[: len(images)]  # maps are large: no second copy


def as_one(outputs: Sequence[Array]) -> Array:
    """All outputs of a network as one array: the only one as it is, several side by side, [N, numbers]."""
    if len(outputs) == 1:
        return outputs[0]
    return np.concatenate([each.reshape(len(each), -1) for each in outputs], axis=1)


@dataclass(frozen=True)
class Parity:
    """Outputs [N, classes], or maps [N, classes, H, W], of an artefact beside those of fp32 PyTorch in the train form.

    images:         N
    max_rel_error:  the largest difference, as a share of the largest output
    cosine:         between the outputs of one image; the least over the images
    top1_agreement: share of the images, of maps of their pixels, whose largest output is the same one
    precision:      whose gate it must pass (`backends.precision`)
    pixels:         of one image that has answers of its own: H * W of maps, else 1
    """

    images: int
    max_rel_error: float
    cosine: float
    top1_agreement: float
    precision: str
    pixels: int = 1

    @property
    def passed(self) -> bool:
        """Whether the artefact still is the network. NaN never passes."""
        gate: Precision = PRECISIONS[self.precision]
        return self.max_rel_error <= gate.tolerance and self.cosine >= gate.cosine

    def as_json(self) -> dict[str, Any]:
        """The fields by name, and whether the gate is passed."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        return f"max error {self.max_rel_error:.1e} of the largest output, cosine {self.cosine:.6f}, " + agreement_text(
            self.top1_agreement, self.images, self.pixels
        )


def agreement_text(share: float, images: int, pixels: int) -> str:
    """`top-1 agrees on 100% of 4 images`; of maps `… on 99.998% of the pixels of 4 images`."""
    if pixels == 1:
        return f"top-1 agrees on {share:.0%} of {images} images"
    return f"top-1 agrees on {100 * share:.5g}% of the pixels of {images} images"


def parity_of(got: Array, want: Array, precision: str) -> Parity:
    """The parity of outputs `got` with `want`, both [N, classes] or [N, classes, H, W]; image by image, since maps are
    large.

    Raises: ValueError when their shapes differ
    """
    if got.shape != want.shape:
        raise ValueError(f"outputs {list(want.shape)} are expected, got {list(got.shape)}")
    tiny = np.finfo(np.float64).tiny
    errors, largest, cosines, agreed = [], [], [], []
    with np.errstate(invalid="ignore"):  # what is not finite never passes
        for mine, other in zip(got, want, strict=True):
            ours, theirs = mine.astype(np.float64).ravel(), other.astype(np.float64).ravel()
            errors.append(np.abs(ours - theirs).max())
            largest.append(np.abs(theirs).max())
            norms = np.linalg.norm(ours) * np.linalg.norm(theirs)
            cosines.append(1.0 if np.array_equal(ours, theirs) else ours @ theirs / max(norms, tiny))
            agreed.append((_answer(mine) == _answer(other)).mean())
    return Parity(
        images=len(got),
        max_rel_error=float(np.max(errors) / max(np.max(largest), tiny)),
        cosine=float(np.min(cosines)),
        top1_agreement=float(np.mean(agreed)),
        precision=precision,
        pixels=got[0, 0].size if _is_map(got[0]) else 1,
    )


def _is_map(output: Array) -> bool:
    return output.ndim == 3


def _answer(output: Array) -> Array:
    """The place of the largest output; of maps for each pixel."""
    return np.asarray(output.argmax(axis=0) if _is_map(output) else output.argmax())
