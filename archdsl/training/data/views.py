"""What a network sees of an image: a part of it, resized and normalised."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels in [0, 1], per channel: the convention of torchvision and timm
STD = (0.229, 0.224, 0.225)

STATISTICS = {
    1: ((0.449,), (0.226,)),
    2: ((0.449, 0.5), (0.226, 0.5)),
    3: (MEAN, STD),
    4: ((*MEAN, 0.5), (*STD, 0.5)),
}
"""Mean and standard deviation by the number of channels: grey has the colours' averages, opaque alpha becomes 1."""

View = Callable[["Image", str], "Tensor"]
"""A decoded image and the text of a seed -> what the network sees, [C, H, W] float32 normalised."""


class Look(NamedTuple):
    """How pixels become numbers. mean, std: by channel, of pixels in [0, 1]; interpolation: when they are resized"""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"

    def normalised(self, image: Image) -> Tensor:
        """PIL image -> [C, H, W] float32, (x / 255 - mean) / std."""
        import numpy as np
        import torch

        pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1) / 255.0
        planes = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(planes).permute(2, 0, 1)

    def resized(self, image: Image, image_size: tuple[int, int], box: tuple[float, float, float, float]) -> Image:
        """A part of the image (left, top, right, bottom), at (height, width)."""
        from PIL import Image as pil

        height, width = image_size
        return image.resize((width, height), pil.Resampling[self.interpolation.upper()], box=box)


class PlainView:
    """A random crop, resized to (height, width), flipped half of the time.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, with the aspect ratios of its section on training.
    """

    def __init__(self, image_size: tuple[int, int], min_area: float, look: Look):
        self.image_size, self.min_area, self.look = image_size, min_area, look

    def __call__(self, image: Image, seed: str) -> Tensor:
        from PIL import Image as pil

        draw = random.Random(seed)
        crop_width, crop_height = image.size
        for _ in range(10):
            area = draw.uniform(self.min_area, 1.0) * image.width * image.height
            aspect = (3 / 4) ** draw.uniform(-1.0, 1.0)
            cut_width, cut_height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < cut_width <= image.width and 0 < cut_height <= image.height:
                crop_width, crop_height = cut_width, cut_height
                break
        left, top = draw.randint(0, image.width - crop_width), draw.randint(0, image.height - crop_height)
        view = self.look.resized(image, self.image_size, (left, top, left + crop_width, top + crop_height))
        return self.look.normalised(view.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else view)


class CentreView:
    """The centre (height, width) after resizing so that it is `crop` of what is seen along the tighter side."""

    def __init__(self, image_size: tuple[int, int], crop: float, look: Look):
        self.image_size, self.crop, self.look = image_size, crop, look

    def __call__(self, image: Image) -> Tensor:
        height, width = self.image_size
        scale = min(image.width / width, image.height / height) * self.crop
        cut_width, cut_height = width * scale, height * scale
        left, top = (image.width - cut_width) / 2, (image.height - cut_height) / 2
        box = (left, top, left + cut_width, top + cut_height)
        return self.look.normalised(self.look.resized(image, self.image_size, box))
