"""Images to try a network on when there are no others."""

from __future__ import annotations

import numpy as np

from archdsl.backends.initial import Array


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
