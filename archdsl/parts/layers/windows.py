"""Attention within windows: into which windows a map is cut, and what lowering made of the windows that were asked for.

Source: Swin, arXiv 2103.14030
"""

from __future__ import annotations

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Order, Raster, Windows, window_order, window_sides
from archdsl.ops.attention import ShiftMask
from archdsl.ops.pointwise import Add


def cut(g: Scope, x: Value, window: int | tuple[int, int], *, shift: bool) -> tuple[Order, Raster | Windows]:
    """The order of the tokens of `x`, and the one in which attention is within windows.

    Notes say where that is not what was asked for.

    Args:
        window: its side, or its height and width; a side longer than the map's becomes the map's, without a shift
        shift: by half a window
    Raises: RuleBroken when the tokens have no place on a map
    """
    home = x.type.order
    if home is None:
        raise RuleBroken(f"windows need a map, but got {x.type}", hint="use a stem without a class token")
    order = window_order(home.height, home.width, window, shift=shift)
    asked, size = window_sides(window), f"{home.height}x{home.width}"
    text = f"{asked[0]}x{asked[1]}" if isinstance(window, tuple) else str(window)
    if asked[0] > home.height and asked[1] > home.width:
        g.note(f"window {text} is larger than the {size} map and became it")
    elif isinstance(window, tuple) and (asked[0] > home.height or asked[1] > home.width):
        sides = min(asked[0], home.height), min(asked[1], home.width)
        g.note(f"window {text} is larger than the {size} map one way and became {sides[0]}x{sides[1]}")
    if shift and not (isinstance(order, Windows) and order.shifted):
        g.note(f"no shift: one window covers the {size} map")
    if order.padded:
        g.note(f"window {text} does not divide the {size} map, which is padded in the attention")
    return home, order


def sides_of(windows: Raster | Windows) -> tuple[int, int]:
    """Height and width of a window; of the map where one window covers it."""
    return windows.window if isinstance(windows, Windows) else (windows.height, windows.width)


def in_windows(g: Scope, windows: Raster | Windows) -> Raster | Windows:
    """The order to attend in: a single window counts as windows too where all blocks are to look alike."""
    if g.regular and isinstance(windows, Raster):
        return Windows(windows.height, windows.width, (windows.height, windows.width))
    return windows


def masked(g: Scope, bias: Value, windows: Raster | Windows) -> Value:
    """What is added to the logits: a position bias, and the mask where windows are shifted."""
    if isinstance(windows, Raster) or not (windows.shifted or g.regular):
        return bias
    return g.add(Add(), bias, g.add(ShiftMask(windows), name="attn.mask"), name="attn.bias")
