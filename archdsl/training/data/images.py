"""Image files as training data: decoding in worker processes, and what becomes of files that cannot be read."""

from __future__ import annotations

import logging
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from archdsl.errors import ArchError
from archdsl.outside_text import printable
from archdsl.processes.imports import safe_spawn
from archdsl.training.data.decode import UnknownRange
from archdsl.training.data.fingerprint import Fingerprint, fingerprint_of
from archdsl.training.data.source import ImageSource
from archdsl.training.data.views import CentreView, Look, PlainView, View
from archdsl.training.failures import training_error
from archdsl.training.processes import share_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from archdsl.training.timm_parts import Augmentation

log = logging.getLogger(__name__)

MAX_NAMED = 10  # corrupt files named in the log of one data set; all are counted
FIRST_NAMED = 3  # files named in a note
MOST_AT_ONCE = 64  # images that a worker process decodes before it sends them

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


class ImageReader(Protocol[Item_contra]):
    """Finds and decodes one image. Goes to the worker processes, so it is small and can be pickled."""

    @property
    def channels(self) -> int: ...

    def open(self, item: Item_contra) -> Image:
        """The image with so many channels, see `decode`. Raises whatever it likes when there is none."""
        ...

    def read(self, item: Item_contra) -> bytes:
        """The bytes of its file. Raises: OSError when there are none"""
        ...

    def listed(self, item: Item_contra) -> tuple[str, int]:
        """Its name relative to the data's folder, and its size in bytes, 0 where that is not known without reading."""
        ...

    def name(self, item: Item_contra) -> str:
        """How a person finds it again."""
        ...


Request = tuple[Any, str | None]
"""What a worker is asked for: an item, and the seed of its training view, or None for its validation view."""


class Images(ABC, Generic[Item]):
    """Labelled images somewhere, as `Data`.

    train, val: (item, label) each, in a fixed order
    validation: what serves as validation, for people: `the 40 images in valid/`
    set_aside:  name of a file that is not used -> why, as the end of a sentence about one file

    A file that cannot be decoded is named in the log and counted. In training the next file of the list that can be
    takes its place, with its own label: in class folders that is nearly always one of the same class. So epochs keep
    their length, and which image is where depends neither on the number of workers nor on that of processes. In
    validation it is left out.
    """

    def __init__(
        self,
        source: ImageSource,
        reader: ImageReader[Item],
        train: Sequence[tuple[Item, int]],
        val: Sequence[tuple[Item, int]],
        classes: Sequence[str],
        image_size: tuple[int, int],
        validation: str,
        set_aside: Mapping[str, str] | None = None,
    ):
        self.source, self.reader, self.train, self.val = source, reader, list(train), list(val)
        self.classes, self.image_size = list(classes), image_size
        self.num_classes, self.num_train = len(self.classes), len(self.train)
        self.validation, self.set_aside = validation, dict(set_aside or {})
        self.corrupt: dict[Item, str] = {}
        self.look = Look(*source.statistics(reader.channels), source.interpolation)
        self.train_view: View = PlainView(image_size, source.min_area, self.look)
        self._loader: Any = None

    @property
    def num_val(self) -> int:
        """Validation images, without those that were found to be corrupt."""
        return sum(item not in self.corrupt for item, _ in self.val)

    @property
    def num_val_independent(self) -> int:
        return self.num_val

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a validation image becomes what the network sees."""
        look = self.look
        fields: dict[str, Any] = {"mean": list(look.mean), "std": list(look.std), "size": list(self.image_size)}
        return {**fields, "crop": self.source.crop, "interpolation": look.interpolation}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped, for people: counts and the first few names."""
        names_by_reason: dict[str, list[str]] = {}
        for item, error in self.corrupt.items():
            kind, _, why = error.partition(": ")
            reason = why if kind == UnknownRange.__name__ else "could not be decoded as an image"
            names_by_reason.setdefault(reason, []).append(self.reader.name(item))
        for name, reason in self.set_aside.items():
            names_by_reason.setdefault(reason, []).append(name)
        found = []
        for reason, names in names_by_reason.items():
            count = "one file" if len(names) == 1 else f"{len(names)} files"
            words = f"{reason} and was skipped"
            if len(names) > 1:
                words = f"{reason} and were skipped".replace("has ", "have ", 1).replace("is ", "are ", 1)
            more = "" if len(names) <= FIRST_NAMED else ", …"
            found.append(f"{count} {words}: {', '.join(map(printable, sorted(names)[:FIRST_NAMED]))}{more}")
        return tuple(found)

    @cached_property
    def content(self) -> Fingerprint:
        """Which files these are, whatever is done to them."""
        items = [*self.train, *self.val]
        listed_items = [(*self.reader.listed(item), self.classes[label]) for item, label in items]
        images = [(name, label, size) for name, size, label in listed_items]
        return fingerprint_of(images, lambda index: self.reader.read(items[index][0]), also=self.told_by)

    def fingerprint(self) -> str:
        return str(self.content)

    def views(self) -> str:
        """What is done to the images, for keys."""
        return self.source.views(self.image_size, self.reader.channels)

    @property
    def told_by(self) -> str:
        """What else than its files tells the data from others."""
        return ""

    @abstractmethod
    def key(self) -> str:
        """Which images these are: a part of a result's key."""

    def augmented(self, augmentation: Augmentation) -> Images[Item]:
        from archdsl.training.timm_parts import AugmentedView

        view = AugmentedView(augmentation, self.image_size, self.source.min_area, *self.look)
        view.prepare()
        other = copy(self)
        other.train_view, other._loader = view, None
        return other

    def train_batches(
        self, batch: int, *, seed: int, epoch: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = random.Random(f"{seed} {epoch}").sample(range(len(self.train)), len(self.train))
        places = share_of(batch, share)
        wanted = [order[start + place] for start in range(0, len(order) - batch + 1, batch) for place in places]

        def labelled() -> Iterator[tuple[Tensor, int]]:
            requests = [(self.train[index][0], f"{seed} {epoch} {index}") for index in wanted]
            for index, (view, error) in zip(wanted, self._loaded(requests, len(places)), strict=True):
                item, label = self.train[index]
                if error is None:
                    yield view, label
                else:
                    self._found_corrupt(item, error)
                    yield self._instead_of(index, f"{seed} {epoch} {index}")

        yield from _stacked(labelled(), len(places))

    def val_batches(self, batch: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        ours = self.val[share[0] :: share[1]]

        def labelled() -> Iterator[tuple[Tensor, int]]:
            requests = [(item, None) for item, _ in ours]
            for (item, label), (view, error) in zip(ours, self._loaded(requests, batch), strict=True):
                if error is None:
                    yield view, label
                else:
                    self._found_corrupt(item, error)

        yield from _stacked(labelled(), batch)

    def sample(self, count: int) -> Tensor:
        import torch

        num = min(count, len(self.train))
        other = copy(self)
        other.source = self.source.model_copy(update={"workers": 0})
        other.val, other._loader = [self.train[len(self.train) * place // num] for place in range(num)], None
        images = [batch for batch, _ in other.val_batches(num)]
        return torch.cat(images) if images else torch.empty(0, self.reader.channels, *self.image_size)

    def close(self) -> None:
        """End the worker processes. The next pass starts new ones."""
        self._loader = None

    def _instead_of(self, index: int, seed: str) -> tuple[Tensor, int]:
        """The view and label of the next file in the list that can be decoded. Errors: TrainingError when none can"""
        for step in range(1, len(self.train)):
            item, label = self.train[(index + step) % len(self.train)]
            if item not in self.corrupt:
                view, error = self._decoding[item, seed]
                if error is None:
                    return view, label
                self._found_corrupt(item, error)
        first = self.train[index][0]
        message = f"not one image of the training set could be read ({self.corrupt[first]})"
        hint = f"check the {len(self.train)} files, such as {printable(self.reader.name(first))}"
        raise training_error("no-images", message, hint=hint)

    def _found_corrupt(self, item: Item, error: str) -> None:
        if item in self.corrupt:
            return
        self.corrupt[item] = error
        if len(self.corrupt) <= MAX_NAMED:
            name = printable(self.reader.name(item))
            log.warning("skipped `%s`: it cannot be decoded as an image (%s)", name, printable(error))
        elif len(self.corrupt) == MAX_NAMED + 1:
            log.warning("more corrupt images follow; they are counted, not named")

    @property
    def _decoding(self) -> Decoding[Item]:
        return Decoding(self.reader, self.train_view, CentreView(self.image_size, self.source.crop, self.look))

    def _loaded(self, requests: Sequence[Request], batch: int) -> Iterator[tuple[Tensor, str | None]]:
        """What was asked for, in that order: a view [C, H, W], or an empty one and why there is none."""
        decoding = self._decoding
        if self.source.workers == 0:
            yield from (decoding[request] for request in requests)
            return
        at_once = max(1, min(batch, MOST_AT_ONCE))
        chunks = [list(requests[start : start + at_once]) for start in range(0, len(requests), at_once)]
        if self._loader is None:
            self._loader = _loader(
                DecodingInWorker(self.reader, decoding.train_view, decoding.val_view), self.source.workers
            )
        self._loader.batch_sampler[:] = chunks
        with safe_spawn():
            decoded = iter(self._loader)
        for views, errors in decoded:
            for view, error in zip(views, errors, strict=True):
                if isinstance(error, ArchError):
                    raise error
                yield view, error


class Decoding(Generic[Item]):
    """`decoding[request]` is (view, None), or (an empty view, why there is none). Errors: ArchError of the view"""

    def __init__(self, reader: ImageReader[Item], train_view: View, val_view: CentreView):
        self.reader, self.train_view, self.val_view = reader, train_view, val_view

    def __getitem__(self, request: Request) -> tuple[Tensor, str | None]:
        item, seed = request
        try:
            image = self.reader.open(item)
        except ArchError:
            raise
        except Exception as error:  # whatever PIL's decoders raise: nearly anything, for a file that is damaged
            return self.no_view(), f"{type(error).__name__}: {str(error)[:200]}"
        return (self.train_view(image, seed) if seed is not None else self.val_view(image)), None

    def no_view(self) -> Tensor:
        """What stands for the view of an image that has none: zeros of its shape."""
        import torch

        return torch.zeros(self.reader.channels, *self.val_view.image_size)


class DecodingInWorker(Decoding[Item]):
    """What a worker process runs: our own errors are returned, since torch would make other ones of them."""

    def __getitem__(self, request: Request) -> tuple[Tensor, Any]:
        try:
            return super().__getitem__(request)
        except ArchError as error:
            return self.no_view(), error


def collated(decoded: list[tuple[Tensor, Any]]) -> tuple[Tensor, list[Any]]:
    """What a worker decoded at once, as it sends it: views [n, C, H, W], and for each why there is none."""
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
        batch_sampler=list[list[Request]](),  # of a pass: set anew before each, while the workers live on
        num_workers=workers,
        collate_fn=collated,
        worker_init_fn=quiet_worker,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn",
    )
    return loader


def _stacked(images: Iterator[tuple[Tensor, int]], batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images with their labels, `batch` at a time; the last batch may be smaller."""
    import torch

    while some := list(islice(images, batch)):
        yield torch.stack([view for view, _ in some]), torch.tensor([label for _, label in some])


def train_val_split(
    items: Sequence[tuple[Item, int]], names: Sequence[str], part: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Places of `items` for training and for validation: `part` of each class, chosen by digest of seed and name.

    So the same images are held out on every machine, and few change sides when images are added. A class with two or
    more keeps at least one on each side; of a class with a single image, that one is trained on.
    """
    from hashlib import sha256

    by_class: dict[int, list[int]] = {}
    for place, (_, label) in enumerate(items):
        by_class.setdefault(label, []).append(place)
    held: set[int] = set()
    salt = f"{seed} ".encode() if seed else b""
    for places in by_class.values():
        ranked = sorted(places, key=lambda place: sha256(salt + os.fsencode(names[place])).digest())
        count = min(len(places) - 1, max(1, round(part * len(places))))
        held.update(ranked[:count])
    return [place for place in range(len(items)) if place not in held], sorted(held)
