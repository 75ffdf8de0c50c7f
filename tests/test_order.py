"""Orders: which raster position each token slot holds, checked against roll, pad and reshape in numpy."""

import numpy as np
import pytest

from archdsl.ir.order import Groups2x2, Planes, Raster, Windows, window_order


def windows_in_numpy(order: Windows) -> list[int]:
    """Roll, pad, cut: the steps as the papers' code does them, on an image of raster indices."""
    (h, w), (dy, dx) = order.window, order.shift
    image = np.arange(order.height * order.width).reshape(order.height, order.width)
    image = np.roll(image, (-dy, -dx), (0, 1))
    image = np.pad(image, ((0, -order.height % h), (0, -order.width % w)), constant_values=-1)
    rows, columns = image.shape[0] // h, image.shape[1] // w
    return image.reshape(rows, h, columns, w).transpose(0, 2, 1, 3).ravel().tolist()


@pytest.mark.parametrize(
    "order",
    [
        Windows(6, 6, (3, 3)),
        Windows(6, 6, (3, 3), (1, 1)),
        Windows(7, 5, (3, 2), (1, 1)),
        Windows(4, 6, (4, 3), (0, 1)),
        Windows(5, 5, (4, 4), (2, 2)),
    ],
    ids=str,
)
def test_window_slots_are_roll_then_pad_then_cut(order: Windows):
    assert list(order.slots()) == windows_in_numpy(order)
    assert len(order.slots()) == order.num_slots
    assert order.padded == (-1 in order.slots())


def test_groups_hold_the_four_neighbours_column_by_column():
    order = Groups2x2(4, 4, Raster(2, 2))
    assert order.slots()[:4] == (0, 4, 1, 5)
    assert sorted(order.slots()) == list(range(16))


def test_groups_of_an_odd_map_are_padded_below_and_to_the_right():
    order = Groups2x2(3, 3, Raster(2, 2))
    assert order.padded
    assert order.slots() == (0, 3, 1, 4, 2, 5, -1, -1, 6, -1, 7, -1, 8, -1, -1, -1)


def test_groups_follow_the_order_of_the_half_size_map():
    outer = Windows(4, 4, (2, 2))
    slots = Groups2x2(8, 8, outer).slots()
    assert slots[16:20] == (4, 12, 5, 13)  # the fifth group is the first of the second window: row 0, column 2


def test_regions_are_those_of_the_reference_mask():
    """Slices (0, -w), (-w, -s), (-s, None) on each axis of the padded map, as Swin numbers them."""
    order = Windows(7, 8, (4, 4), (2, 2))
    image = np.zeros((8, 8), dtype=int)
    number = 0
    for rows in (slice(0, -4), slice(-4, -2), slice(-2, None)):
        for columns in (slice(0, -4), slice(-4, -2), slice(-2, None)):
            image[rows, columns] = number
            number += 1
    expected = image.reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).ravel()
    assert list(order.regions()) == expected.tolist()


def test_an_axis_without_shift_has_one_region():
    order = Windows(4, 8, (4, 4), (0, 2))
    assert set(order.regions()) == {0, 1, 2}


def test_a_window_that_covers_the_map_becomes_it_and_is_not_shifted():
    assert window_order(7, 7, 14, shift=True) == Raster(7, 7)
    assert window_order(7, 7, 7, shift=True) == Raster(7, 7)


def test_each_side_is_clamped_by_itself():
    assert window_order(4, 16, 8, shift=True) == Windows(4, 16, (4, 8), (0, 4))


def test_an_odd_window_is_shifted_by_its_half_rounded_down():
    assert window_order(56, 56, 7, shift=True) == Windows(56, 56, (7, 7), (3, 3))


def test_planes_and_raster_hold_the_map_alike():
    assert Planes(3, 4).slots() == Raster(3, 4).slots() == tuple(range(12))
