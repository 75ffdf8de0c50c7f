"""The generated data: deterministic, balanced, and with a label that no half of the image can tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toy_training import connects_halves

from archdsl.errors import SpecError, TrainingError
from archdsl.training.data import parse_source
from archdsl.training.data.synthetic import (
    COLOURS,
    Pairs,
    SyntheticPairs,
    colours_of,
    label_of,
    swap_halves,
)


def opened(size: tuple[int, int] = (32, 32), **fields: object) -> Pairs:
    data = SyntheticPairs(**{"num_train": 600, "num_val": 240, **fields}).open(size)
    assert isinstance(data, Pairs)
    return data


def test_the_same_fields_give_the_same_images_and_another_seed_gives_others():
    once, again, other = opened(), opened(), opened(seed=1)
    assert torch.equal(once.train[0], again.train[0]) and torch.equal(once.val[1], again.val[1])
    assert once.key() == again.key() != other.key()
    assert not torch.equal(once.train[0], other.train[0])


def test_the_validation_set_shares_no_image_with_the_training_set():
    data = opened(num_train=120, num_val=240)
    train = {image.numpy().tobytes() for image in data.train[0]}
    assert not any(image.numpy().tobytes() in train for image in data.val[0])


def test_batches_depend_on_seed_and_epoch_alone():
    data = opened()

    def labels(seed: int, epoch: int) -> list[int]:
        return [int(y) for _, ys in data.train_batches(50, seed=seed, epoch=epoch) for y in ys]

    assert labels(0, 0) == labels(0, 0)
    assert labels(0, 0) != labels(0, 1) and labels(0, 0) != labels(1, 0)
    assert sorted(labels(0, 1)) == sorted(data.train[1].tolist())


@pytest.mark.parametrize("colours", [2, 3, 4, 6])
def test_classes_are_balanced_and_every_label_names_two_different_colours(colours):
    data = opened(colours=colours)
    counts = np.bincount(data.train[1].numpy(), minlength=data.num_classes)
    assert data.num_classes == colours * (colours - 1) == len(counts)
    assert counts.max() - counts.min() <= 1
    labels = np.arange(data.num_classes)
    left, right = colours_of(labels, colours)
    assert (left != right).all() and (label_of(left, right, colours) == labels).all()
    assert (np.bincount(data.val[1].numpy(), minlength=data.num_classes) > 0).all()


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_the_label_is_read_from_the_colour_in_each_half(size):
    data = opened(size, noise=0.0)
    images, labels = (part.numpy() for part in data.train)
    half = size[1] // 2
    left, right = colours_of(labels, 4)
    for columns, colour in ((slice(0, half), left), (slice(half, None), right)):
        seen = images[:, :, :, columns].max(axis=(2, 3))
        assert np.array_equal(seen, COLOURS[colour])
        filled = (images[:, :, :, columns].max(axis=1) > 0).sum(axis=(1, 2))
        assert (filled == SyntheticPairs().edge(size[1]) ** 2).all()


def test_squares_lie_at_every_pixel_and_not_on_a_patch_grid():
    images = opened(noise=0.0, num_train=4000).train[0]
    columns = images.amax(dim=(1, 2))
    left_edges = {int(row[:16].argmax()) for row in columns}
    assert left_edges == set(range(16 - SyntheticPairs().edge(32) + 1))


def test_one_half_alone_or_the_colours_without_their_order_reach_no_more_than_the_ceiling():
    data = opened(num_train=6000, num_val=1200)
    labels = data.val[1].numpy()
    left, right = colours_of(labels, 4)
    unordered = np.minimum(left, right) * 4 + np.maximum(left, right)
    for known in (left, right):  # the best guess from one half: the most frequent label beside it
        best = sum(np.bincount(labels[known == value]).max() for value in np.unique(known))
        assert best / len(labels) < 0.45
    best = sum(np.bincount(labels[unordered == value]).max() for value in np.unique(unordered))
    assert best / len(labels) == 0.5


def test_no_classifier_that_cannot_tell_the_halves_apart_measures_above_half():
    """The ceiling on this finite set: whatever the classifier answers to an image, it answers to the swapped one."""
    data = opened()
    labels = data.val[1]
    pairs = len(labels) // 2
    answers = torch.randint(0, data.num_classes, (1000, pairs), generator=torch.Generator().manual_seed(0))
    answers[0] = labels[:pairs]  # the best of all: always right about the first image of the pair
    right = (torch.cat([answers, answers], dim=1) == labels).float().mean(dim=1)
    assert right[0] == 0.5 and right.max() == 0.5


def test_the_validation_set_holds_every_image_with_its_halves_swapped():
    data = opened()
    images, labels = data.val
    pairs = len(labels) // 2
    swapped, swapped_labels = swap_halves(images[:pairs].numpy(), labels[:pairs].numpy(), 4)
    assert np.array_equal(swapped, images[pairs:].numpy()) and np.array_equal(swapped_labels, labels[pairs:].numpy())
    assert (labels[:pairs] != labels[pairs:]).all()
    assert data.num_val_independent == pairs


class Pooled(nn.Sequential):
    """Convolutions, then the mean over all places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).mean(dim=(2, 3))


def test_a_network_connects_the_halves_only_if_a_swap_changes_its_answer():
    torch.manual_seed(0)
    data = opened()
    windows = Pooled(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.GELU(), nn.Conv2d(8, 16, 2, 2))
    assert not connects_halves(windows.train(), data)
    assert windows.training, "the mode is left as it was"
    overlapping = Pooled(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU())
    assert connects_halves(overlapping, data)
    leaking = Pooled(nn.Conv2d(3, 8, 1, padding=1), nn.Conv2d(8, 8, 2, 2), nn.GELU())
    assert connects_halves(leaking, data), "zero padding moves the windows over the midline"


def test_a_width_that_has_no_halves_and_too_much_memory_are_refused():
    with pytest.raises(TrainingError, match=r"^--data:1:1: the image width must be even .* 32x33 px \[out-of-range\]"):
        opened((32, 33))
    with pytest.raises(TrainingError, match=r"would take .* GiB of memory"):
        opened((512, 512), num_train=100_000)


def test_the_text_form_names_what_differs_from_the_default():
    assert parse_source("synthetic") == SyntheticPairs()
    assert parse_source({"type": "synthetic", "colours": 3}) == SyntheticPairs(colours=3)
    assert SyntheticPairs().text() == "synthetic"
    assert SyntheticPairs(colours=3, noise=0.2).text() == "synthetic colours=3 noise=0.2"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sinthetic", r"no data source `sinthetic` \[unknown-name\](.|\n)*did you mean `synthetic`"),
        ("synthetic:/tmp", r"unknown key `path` \[unknown-key\](.|\n)*The data source `synthetic` has: "),
        ("imagefolder", r"`path` is missing: the data source `imagefolder` needs it \[missing-key\]"),
        ({"num_train": 5}, r"data need a `type` \[missing-key\]"),
        ({"type": "synthetic", "nois": 0.1}, r"\[unknown-key\](.|\n)*did you mean `noise`"),
        ({"type": "synthetic", "colours": 9}, r"`colours` must be at most 6, but got `9` \[out-of-range\]"),
        ({"type": "synthetic", "colours": "four"}, r"`colours` must be a whole number, but got `four` \[wrong-type\]"),
        ({"type": "synthetic", "num_val": 3}, r"multiple of 2, but got `3` \[out-of-range\]"),
        ({"type": ["synthetic"]}, r"data need a `type`"),
    ],
)
def test_wrong_text_forms_say_what_was_meant(value, message):
    with pytest.raises(SpecError, match=message):
        parse_source(value)
