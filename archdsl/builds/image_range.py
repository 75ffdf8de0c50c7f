"""Whether images look as if they were normalised the way that the network expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from archdsl.backends.initial import Array

USUAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What networks of unknown training are taken to expect: ImageNet's, https://pytorch.org/vision/stable/models.html."""

_OVERSHOOT = 0.15
"""How far bicubic resizing goes beyond the range of the pixels, as a share of it."""


def range_note(images: Array, preprocessing: Mapping[str, Any] = USUAL) -> str | None:
    """A sentence when the images [N, C, H, W] cannot be, or hardly are, pixels (x / 255 - mean) / std; else None.

    preprocessing: with `mean` and `std`, by channel
    """
    mean, std = (np.asarray(preprocessing[name], dtype=float) for name in ("mean", "std"))
    low, high = float((-mean / std).min()), float(((1 - mean) / std).max())
    least, most = float(images.min()), float(images.max())
    slack = _OVERSHOOT * (high - low)
    seems = None
    if least >= 0 and most > high + slack:
        seems = "pixels from 0 to 255"
    elif low < -0.5 and least >= 0 and most <= 1:
        seems = "pixels from 0 to 1"
    elif low < -1.5 and least >= -1 and most <= 1 and (least < -0.98 or most > 0.98):
        seems = "pixels from -1 to 1"
    elif least < low - slack or most > high + slack:
        seems = "no pixels at all"
    if seems is None:
        return None
    wanted = f"(x / 255 - mean) / std with mean {_numbers(mean)} and std {_numbers(std)}: {low:.2f} to {high:.2f}"
    return f"the images have values from {least:.4g} to {most:.4g} and seem {seems}; the network expects {wanted}"


def _numbers(values: Array) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
