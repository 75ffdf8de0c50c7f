"""Image files as training data: decoding in worker processes, views, and what becomes of files that cannot be read."""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from archdsl.errors import ArchError, Place, Problem, TrainingError
from archdsl.training.processes import share_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from archdsl.training.timm_parts import Augmentation

log = logging.getLogger(__name__)

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels in [0, 1], per channel: the convention of torchvision and timm
STD = (0.229, 0.224, 0.225)
MAX_NAMED = 10  # corrupt files named in the log of one data set; all are counted
FIRST_NAMED = 3  # files named in a note
MOST_AT_ONCE = 64  # images that a worker process decodes before it sends them

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


class Reader(Protocol[Item_contra]):
    """Finds and decodes one image. Goes to the worker processes, so it is small and can be pickled."""

    def open(self, item: Item_contra) -> Image:
        """The image in RGB. Raises whatever it likes when there is none."""
        ...

    def name(self, item: Item_contra) -> str:
        """How a person finds it again."""
        ...


View = Callable[["Image", str], "Tensor"]
"""A decoded image and the text of a seed -> what the network sees, [3, H, W] float32 normalised."""

Request = tuple[Any, str | None]
"""What a worker is asked for: an item, and the seed of its training view, or None for its validation view."""


class Images(ABC, Generic[Item]):
    """Labelled images somewhere, as `Data`.

    train, val: (item, label) each, in a fixed order; set_aside: names of files that are no images, as far as names say

    A file that cannot be decoded is named in the log and counted. In training the next file of the list that can be
    takes its place, with its own label: in class folders that is nearly always one of the same class. So epochs keep
    their length, and which image is where depends neither on the number of workers nor on that of processes. In
    validation it is left out.
    """

    kind = "images"

    def __init__(
        self,
        reader: Reader[Item],
        train: Sequence[tuple[Item, int]],
        val: Sequence[tuple[Item, int]],
        classes: Sequence[str],
        image_size: tuple[int, int],
        *,
        workers: int,
        min_area: float,
        crop: float,
        set_aside: Sequence[str] = (),
    ):
        self.reader, self.train, self.val = reader, list(train), list(val)
        self.classes, self.image_size = list(classes), image_size
        self.num_classes, self.num_train = len(self.classes), len(self.train)
        self.workers, self.min_area, self.crop = workers, min_area, crop
        self.set_aside = list(set_aside)
        self.corrupt: dict[Item, str] = {}
        self.train_view: View = PlainView(image_size, min_area)
        self._loader: Any = None

    @property
    def num_val(self) -> int:
        """Validation images, without those that were found to be corrupt."""
        return sum(item not in self.corrupt for item, _ in self.val)

    @property
    def num_val_independent(self) -> int:
        return self.num_val

    @property
    def num_corrupt(self) -> int:
        """Files that could not be decoded so far."""
        return len(self.corrupt)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped, for people: counts and the first few names."""
        found = []
        for names, what in (
            ([self.reader.name(item) for item in self.corrupt], "could not be decoded as an image and was skipped"),
            (self.set_aside, "has no ending of an image file and was skipped"),
        ):
            if names:
                count = "one file" if len(names) == 1 else f"{len(names)} files"
                words = what if len(names) == 1 else what.replace("was", "were").replace("has", "have")
                more = "" if len(names) <= FIRST_NAMED else ", …"
                found.append(f"{count} {words}: {', '.join(sorted(names)[:FIRST_NAMED])}{more}")
        return tuple(found)

    @abstractmethod
    def key(self) -> str:
        """Which images these are: a part of a result's key."""

    def augmented(self, augmentation: Augmentation) -> Images[Item]:
        from archdsl.training.timm_parts import AugmentedView

        view = AugmentedView(augmentation, self.image_size, self.min_area, MEAN, STD)
        view.prepare()
        other = copy(self)
        other.train_view, other._loader = view, None
        return other

    def train_batches(
        self, batch: int, *, seed: int, epoch: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        order = random.Random(f"{seed} {epoch}").sample(range(len(self.train)), len(self.train))
        places = share_of(batch, share)
        wanted = [order[start + place] for start in range(0, len(order) - batch + 1, batch) for place in places]
        requests: list[Request] = [(self.train[i][0], f"{seed} {epoch} {i}") for i in wanted]
        pending: list[tuple[Tensor, int]] = []
        done = 0
        for views, errors in self._loaded(requests, len(places)):
            for view, error in zip(views, errors, strict=True):
                index = wanted[done]
                done += 1
                if error is None:
                    pending.append((view, self.train[index][1]))
                else:
                    self._found_corrupt(self.train[index][0], error)
                    pending.append(self._instead_of(index, f"{seed} {epoch} {index}"))
            while len(pending) >= len(places):
                some, pending = pending[: len(places)], pending[len(places) :]
                yield torch.stack([view for view, _ in some]), torch.tensor([label for _, label in some])

    def val_batches(self, batch: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        ours = self.val[share[0] :: share[1]]
        pending: list[tuple[Tensor, int]] = []
        done = 0
        for views, errors in self._loaded([(item, None) for item, _ in ours], batch):
            for view, error in zip(views, errors, strict=True):
                item, label = ours[done]
                done += 1
                if error is None:
                    pending.append((view, label))
                else:
                    self._found_corrupt(item, error)
            while len(pending) >= batch or (pending and done == len(ours)):
                some, pending = pending[:batch], pending[batch:]
                yield torch.stack([view for view, _ in some]), torch.tensor([label for _, label in some])

    def close(self) -> None:
        """End the worker processes. The next pass starts new ones."""
        self._loader = None

    def _instead_of(self, index: int, seed: str) -> tuple[Tensor, int]:
        """The view and label of the next file in the list that can be decoded. Errors: TrainingError when none can"""
        for step in range(1, len(self.train)):
            item, label = self.train[(index + step) % len(self.train)]
            if item not in self.corrupt:
                view, error = _view_of(self.reader, item, seed, self.train_view, self._val_view)
                if error is None:
                    return view, label
                self._found_corrupt(item, error)
        message, name = "not one image of the training set could be read", self.reader.name(self.train[index][0])
        hint = f"check the {len(self.train)} files, such as {name}"
        raise TrainingError(Problem(Place("training"), "no-images", message, hint))

    def _found_corrupt(self, item: Item, error: str) -> None:
        if item in self.corrupt:
            return
        self.corrupt[item] = error
        if len(self.corrupt) <= MAX_NAMED:
            log.warning("skipped `%s`: it cannot be decoded as an image (%s)", self.reader.name(item), error)
        elif len(self.corrupt) == MAX_NAMED + 1:
            log.warning("more corrupt images follow; they are counted, not named")

    @property
    def _val_view(self) -> CentreView:
        return CentreView(self.image_size, self.crop)

    def _loaded(self, requests: Sequence[Request], batch: int) -> Iterator[tuple[Tensor, list[str | None]]]:
        """What was asked for, in that order, some at once: views [n, 3, H, W], and for each why there is none."""
        at_once = max(1, min(batch, MOST_AT_ONCE))
        chunks = [list(requests[start : start + at_once]) for start in range(0, len(requests), at_once)]
        decoding = Decoding(self.reader, self.train_view, self._val_view)
        if self.workers == 0:
            yield from (collated([decoding[request] for request in chunk]) for chunk in chunks)
            return
        if self._loader is None:
            self._loader = _loader(decoding, self.workers)
        self._loader.batch_sampler.chunks = chunks
        yield from self._loader


class Decoding(Generic[Item]):
    """What a worker process runs: `decoding[request]` is (view, None), or (an empty view, why there is none)."""

    def __init__(self, reader: Reader[Item], train_view: View, val_view: CentreView):
        self.reader, self.train_view, self.val_view = reader, train_view, val_view

    def __getitem__(self, request: Request) -> tuple[Tensor, str | None]:
        item, seed = request
        return _view_of(self.reader, item, seed, self.train_view, self.val_view)


class Chunks:
    """Which requests a loader's workers get; set anew before each pass, while the workers live on."""

    def __init__(self) -> None:
        self.chunks: list[list[Request]] = []

    def __iter__(self) -> Iterator[list[Request]]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


def collated(decoded: list[tuple[Tensor, str | None]]) -> tuple[Tensor, list[str | None]]:
    import torch

    return torch.stack([view for view, _ in decoded]), [error for _, error in decoded]


def quiet_worker(number: int) -> None:
    """Ctrl-C is the main process's to handle; a worker ends with it. Each decodes on one thread."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.manual_seed(number)  # nothing draws from it: views are seeded one by one


def _loader(decoding: Decoding[Any], workers: int) -> Any:
    import torch
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        decoding,  # type: ignore[arg-type]  # it has no length: requests come from the chunks
        batch_sampler=Chunks(),
        num_workers=workers,
        collate_fn=collated,
        worker_init_fn=quiet_worker,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn",
    )
    return loader


def _view_of(
    reader: Reader[Any], item: Any, seed: str | None, train_view: View, val_view: CentreView
) -> tuple[Tensor, str | None]:
    import torch

    try:
        image = reader.open(item)
    except ArchError:
        raise
    except Exception as error:  # whatever PIL's decoders raise: nearly anything, for a file that is damaged
        height, width = val_view.image_size
        return torch.zeros(3, height, width), f"{type(error).__name__}: {str(error)[:200]}"
    return (train_view(image, seed) if seed is not None else val_view(image)), None


class PlainView:
    """A random crop, resized to (height, width), flipped half of the time."""

    def __init__(self, image_size: tuple[int, int], min_area: float):
        self.image_size, self.min_area = image_size, min_area

    def __call__(self, image: Image, seed: str) -> Tensor:
        return normalised(train_view(image, self.image_size, self.min_area, random.Random(seed)))


class CentreView:
    """The centre of an image, for validation."""

    def __init__(self, image_size: tuple[int, int], crop: float):
        self.image_size, self.crop = image_size, crop

    def __call__(self, image: Image) -> Tensor:
        return normalised(val_view(image, self.image_size, self.crop))


def train_view(image: Image, image_size: tuple[int, int], min_area: float, draw: random.Random) -> Image:
    """A random crop, resized to (height, width), flipped half of the time.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, with the aspect ratios of its section on training.
    """
    from PIL import Image as pil

    height, width = image_size
    crop_width, crop_height = image.size
    for _ in range(10):
        area = draw.uniform(min_area, 1.0) * image.width * image.height
        aspect = (3 / 4) ** draw.uniform(-1.0, 1.0)
        cut_width, cut_height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < cut_width <= image.width and 0 < cut_height <= image.height:
            crop_width, crop_height = cut_width, cut_height
            break
    left, top = draw.randint(0, image.width - crop_width), draw.randint(0, image.height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    view = image.resize((width, height), pil.Resampling.BICUBIC, box=box)
    return view.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else view


def val_view(image: Image, image_size: tuple[int, int], crop: float) -> Image:
    """The centre (height, width) after resizing so that it is `crop` of what is seen along the tighter side."""
    from PIL import Image as pil

    height, width = image_size
    scale = min(image.width / width, image.height / height) * crop
    cut_width, cut_height = width * scale, height * scale
    left, top = (image.width - cut_width) / 2, (image.height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return image.resize((width, height), pil.Resampling.BICUBIC, box=box)


def normalised(image: Image) -> Tensor:
    """PIL image -> [3, H, W] float32 with ImageNet's mean and standard deviation taken out."""
    import numpy as np
    import torch

    pixels = np.asarray(image, dtype=np.float32) / 255.0
    planes = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(planes).permute(2, 0, 1)


def carved(items: Sequence[tuple[Item, int]], names: Sequence[str], part: float) -> tuple[list[int], list[int]]:
    """Places of `items` for training and for validation: `part` of each class, chosen by digest of their names.

    So the same images are held out on every machine, and few change sides when images are added. A class with two or
    more keeps at least one on each side; of a class with a single image, that one is trained on.
    """
    from hashlib import sha256

    by_class: dict[int, list[int]] = {}
    for place, (_, label) in enumerate(items):
        by_class.setdefault(label, []).append(place)
    held: set[int] = set()
    for places in by_class.values():
        ranked = sorted(places, key=lambda place: sha256(names[place].encode()).digest())
        count = min(len(places) - 1, max(1, round(part * len(places))))
        held.update(ranked[:count])
    return [place for place in range(len(items)) if place not in held], sorted(held)
