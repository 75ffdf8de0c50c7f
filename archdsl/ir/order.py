"""How the features of a map are laid out in memory. The layout is part of a value's type.

A map of H x W positions is held either as tokens, `[B, N, C]`, in one of several orders, or as planes, `[B, C, H, W]`.
`slots()` says for every token slot which raster position it holds, or -1 for padding; one op, `Reorder`, goes from any
order to any other, so window partition, window merge, cyclic shift, the gather of patch merging and the change between
tokens and planes are all the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from archdsl.ir.identity import Identified


@dataclass(frozen=True)
class MapOrder(Identified):
    """The base of all orders; by itself the map as one piece, row by row."""

    height: int
    width: int

    @property
    def num_windows(self) -> int:
        """Into how many windows attention cuts the tokens."""
        return 1

    @property
    def num_slots(self) -> int:
        """The number of tokens N, padding included."""
        return self.height * self.width

    @property
    def padded(self) -> bool:
        """Whether some slots hold no position of the map."""
        return self.num_slots != self.height * self.width

    def slots(self) -> tuple[int, ...]:
        """For each slot the raster position it holds, or -1 for padding."""
        return tuple(range(self.num_slots))


class Raster(MapOrder):
    """Tokens row by row: slot `y * width + x`."""

    identity: ClassVar[str] = "Raster(height, width)"

    def __str__(self) -> str:
        return f"raster({self.height}x{self.width})"


class Planes(MapOrder):
    """A feature map, channels first: `[B, C, H, W]`. Convolutions want this."""

    identity: ClassVar[str] = "Planes(height, width)"

    def __str__(self) -> str:
        return f"planes({self.height}x{self.width})"


@dataclass(frozen=True)
class Windows(MapOrder):
    """Tokens window by window, each window row by row.

    The map is first rolled up and left by `shift`, then padded with zeros below and to the right until the window
    divides it, then cut (the order of steps of timm's SwinTransformerBlock).

    places_first: the first place of all windows, then the second of all, and so on, instead of window by window
    """

    identity: ClassVar[str] = "Windows(height, width, window, shift)"

    window: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    places_first: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """How many windows down and across."""
        return -(-self.height // self.window[0]), -(-self.width // self.window[1])

    @property
    def num_windows(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def num_slots(self) -> int:
        return self.num_windows * self.window[0] * self.window[1]

    @property
    def shifted(self) -> bool:
        """Whether the map is rolled before it is cut."""
        return self.shift != (0, 0)

    def slots(self) -> tuple[int, ...]:
        return _window_slots(self)

    def regions(self) -> tuple[int, ...]:
        """For each slot, the number of the connected region of the image its token comes from.

        A shifted window at the border holds tokens from opposite sides of the image; they must not attend to each
        other. Padding belongs to the region it is next to, as in timm. Source: Swin (arXiv 2103.14030), figure 4.
        """
        rows = _axis_regions(self.grid[0] * self.window[0], self.window[0], self.shift[0])
        columns = _axis_regions(self.grid[1] * self.window[1], self.window[1], self.shift[1])
        return tuple(3 * rows[y] + columns[x] for y, x in _places(self))

    def __str__(self) -> str:
        size = f"{self.window[0]}x{self.window[1]}"
        shift = f", shift {self.shift[0]}x{self.shift[1]}" if self.shifted else ""
        places = ", places first" if self.places_first else ""
        return f"windows({self.height}x{self.width} by {size}{shift}{places})"


@dataclass(frozen=True)
class Groups2x2(MapOrder):
    """Tokens in groups of four neighbours (a 2x2 patch), the groups in the order `outer` of the half-size map.

    Inside a group: (0,0), (1,0), (0,1), (1,1), as in Swin's patch merging. Odd sides are padded below / to the right.
    """

    identity: ClassVar[str] = "Groups2x2(height, width, outer)"

    outer: Raster | Windows

    @property
    def num_slots(self) -> int:
        return 4 * self.outer.num_slots

    def slots(self) -> tuple[int, ...]:
        return _group_slots(self)

    def __str__(self) -> str:
        return f"groups2x2({self.height}x{self.width} in {self.outer})"


Order = Raster | Planes | Windows | Groups2x2
TokenOrder = Raster | Windows | Groups2x2


def window_sides(window: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a window that is written as one number when square."""
    return window if isinstance(window, tuple) else (window, window)


def window_order(height: int, width: int, window: int | tuple[int, int], *, shift: bool) -> Raster | Windows:
    """The order in which attention within windows wants the tokens of a map.

    window: its side, or its height and width

    Swin's rule: a window as large as the map, or larger, becomes the map and is not shifted; otherwise a shift is
    half a window. Sides are treated one by one, as in timm. One window over the whole map *is* raster order.
    """
    asked = window_sides(window)
    sides = (min(asked[0], height), min(asked[1], width))
    shifts = tuple(own // 2 if shift and side > own else 0 for own, side in zip(asked, (height, width), strict=True))
    if sides == (height, width):
        return Raster(height, width)
    return Windows(height, width, sides, (shifts[0], shifts[1]))


def _places(order: Windows) -> Iterator[tuple[int, int]]:
    """For each slot its row and column in the padded map: window by window, each window row by row, or places first."""
    (down, across), (h, w) = order.grid, order.window
    windows = [(i * h, j * w) for i in range(down) for j in range(across)]
    places = [(y, x) for y in range(h) for x in range(w)]
    if order.places_first:
        return ((i + y, j + x) for y, x in places for i, j in windows)
    return ((i + y, j + x) for i, j in windows for y, x in places)


@lru_cache(maxsize=256)
def _window_slots(order: Windows) -> tuple[int, ...]:
    (dy, dx), (height, width) = order.shift, (order.height, order.width)
    inside = ((y < height and x < width, (y + dy) % height, (x + dx) % width) for y, x in _places(order))
    return tuple(row * width + column if held else -1 for held, row, column in inside)


@lru_cache(maxsize=256)
def _group_slots(order: Groups2x2) -> tuple[int, ...]:
    half_width = order.outer.width
    slots = []
    for group in order.outer.slots():
        for x in (0, 1):
            for y in (0, 1):
                row, column = 2 * (group // half_width) + y, 2 * (group % half_width) + x
                inside = group >= 0 and row < order.height and column < order.width
                slots.append(row * order.width + column if inside else -1)
    return tuple(slots)


def _axis_regions(size: int, window: int, shift: int) -> list[int]:
    """0 for all but the last window, 1 for its part from the near side, 2 for the part rolled in from the far side."""
    if shift == 0:
        return [0] * size
    return [0 if i < size - window else 1 if i < size - shift else 2 for i in range(size)]
