"""Image files as 8 bits a channel: which are opened at all, and the range of each of Pillow's modes."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of Pillow's formats those that are opened, whatever a file is called: others run programs (EPS) or are rare."""

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
"""Of files that are taken for images when a folder is listed, in small letters."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What a network with so many input channels sees: grey, grey and alpha, colours, colours and alpha."""

_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class UnknownRange(Exception):
    """The file says nothing of which number is white. The text ends a sentence that begins with the file."""


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """A regular file, opened for reading. Raises OSError for anything else: a pipe would wait for its other end."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(handle, "rb")


def decode(file: IO[bytes], channels: int = 3, *, exif_orientation: bool = False) -> Image:
    """The image in a file, in the mode of `MODES` for so many channels.

    exif_orientation: turn it as its EXIF data say; otherwise its pixels stay as they are stored, as in torchvision
    Raises: `UnknownRange`; for a file that is damaged or of no format of `FORMATS`, whatever Pillow raises
    """
    from PIL import Image as pil
    from PIL import ImageOps, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, which nothing here reads, and of many pixels
        try:
            opened = pil.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise UnidentifiedImageError(f"its content is none of {', '.join(FORMATS)}") from None
        with opened:
            image = _eight_bits(opened)
            if exif_orientation:
                image = ImageOps.exif_transpose(image)
            return image.convert(MODES[channels])


def _eight_bits(image: Image) -> Image:
    """The image in one of the modes L, LA, RGB and RGBA. Alpha is kept beside the colours, not blended with them."""
    if image.mode in MODES.values():
        image.load()
        return image
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(_TIFF_BITS, (16,))[0]
        return _scaled(image, 2**bits - 1, inverted=tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO)
    if image.mode == "I":
        if image.format not in ("PNG", "PPM"):  # these have 16 bits a pixel, which Pillow may give as 32
            raise UnknownRange("has 32-bit or signed integers, which do not say what is white")
        return _scaled(image, 2**16 - 1)
    if image.mode == "F":
        return _scaled(image, 1)
    if image.mode in ("La", "RGBa"):  # multiplied by alpha already
        return image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")


def _scaled(image: Image, white: int, *, inverted: bool = False) -> Image:
    """Numbers from 0 to `white` as grey from 0 to 255. Raises: UnknownRange when there are others"""
    from PIL import Image as pil

    values = np.asarray(image, dtype=np.float64)
    if not (values.min() >= 0 and values.max() <= white):  # also where one is not a number
        raise UnknownRange(f"has numbers outside 0 to {white}, which do not say what is white")
    grey = np.rint(values * (255 / white)).astype(np.uint8)
    scaled = pil.fromarray(255 - grey if inverted else grey)
    scaled.info.update({name: image.info[name] for name in ("exif",) if name in image.info})
    return scaled
