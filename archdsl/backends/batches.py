"""Giving images to something that takes a certain number of them at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from archdsl.backends.initial import Array


def in_batches(run: Callable[[Array], Array], images: Array, batch: int | None) -> Array:
    """What `run` gives for images [N, C, H, W], `batch` at once; a last batch that is not full repeats images.

    batch: None tries two sizes: first one image, then all the others and two more
    """
    if batch is None:
        rest = np.resize(np.roll(images, -1, axis=0), (len(images) + 1, *images.shape[1:]))
        return np.concatenate([run(images[:1]), run(rest)])[: len(images)]
    size = -(-len(images) // batch) * batch
    filled = np.resize(images, (size, *images.shape[1:]))
    return np.concatenate([run(filled[i : i + batch]) for i in range(0, size, batch)])[: len(images)]
