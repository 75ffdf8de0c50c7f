"""Which images a data set holds, as one short line: a study or a training that goes on must find the same."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CONTENT = " content="
"""Before a digest of contents at the end of a key; the keys of older versions end where it begins."""

NUM_READ = 1000
"""Images whose bytes are looked at; of all others the name, the class and the size."""
MOST_BYTES = 16 << 20
"""Of each of them."""


@dataclass(frozen=True)
class Fingerprint:
    """num_images, num_classes, size_bytes: in all; digest: of names, classes, sizes, and the bytes of a sample"""

    num_images: int
    num_classes: int
    size_bytes: int
    digest: str

    def __str__(self) -> str:
        return f"{self.num_images} images, {self.num_classes} classes, {self.size_bytes} bytes, {self.digest}"


def fingerprint_of(
    images: Sequence[tuple[str, str, int]], read: Callable[[int], bytes], *, seed: int = 0, also: str = ""
) -> Fingerprint:
    """The fingerprint of images in any order.

    Args:
        images: (name relative to the data's folder, class, size in bytes) each; names differ
        read:   the bytes of the image at an index. One that raises OSError counts as empty
        seed:   which `NUM_READ` of them are read
        also:   what else identifies the data
    """
    digest = hashlib.sha256(also.encode("utf-8", "surrogateescape"))
    order = sorted(range(len(images)), key=lambda index: images[index])
    for index in order:
        name, label, size = images[index]
        digest.update(os.fsencode(f"{name}\0{label}\0{size}\0"))
    for index in random.Random(seed).sample(order, min(NUM_READ, len(order))):
        try:
            data = read(index)
        except OSError:
            data = b""
        digest.update(hashlib.sha256(data).digest())
    classes = {label for _, label, _ in images}
    return Fingerprint(len(images), len(classes), sum(size for _, _, size in images), digest.hexdigest()[:16])
