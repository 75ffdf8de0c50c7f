"""The layouts of tokens in a network, and how simply the file can say them."""

from __future__ import annotations

from dataclasses import dataclass

from archdsl.backends.source.alike import Layout, MaskIfShifted
from archdsl.ir.graph import Graph, Node
from archdsl.ir.op import Op
from archdsl.ir.order import Groups2x2, Order, Windows
from archdsl.ops import (
    Activation,
    Add,
    Affine,
    Attention,
    BatchNorm,
    Dropout,
    LayerNorm,
    LayerScale,
    Linear,
    Reorder,
    Slice,
)

WINDOW_BY_WINDOW: tuple[type[Op], ...] = (
    *(Activation, Add, Affine, Attention, BatchNorm, Dropout, LayerNorm, LayerScale, Linear, Reorder, Layout, Slice),
)
"""Ops that may take windows for images of a batch of their own."""


@dataclass(frozen=True)
class Layouts:
    """Which layouts a graph has.

    square: all maps, windows and shifts are square, so that one number says each
    shifted, padded, odd: some windows are shifted; some are padded; some maps of odd sides are cut into 2x2 patches
    folded: windows can be held as images of a larger batch, [B * windows, places, C], as Swin's own code does;
            otherwise tokens stay [B, N, C], window after window
    """

    square: bool
    shifted: bool
    padded: bool
    odd: bool
    folded: bool

    def side(self, sides: tuple[int, int]) -> int | tuple[int, int]:
        """Two sides as the file writes them."""
        return sides[0] if self.square else sides


def layouts_of(graph: Graph) -> Layouts:
    """The layouts of a graph."""
    nodes = graph.live()
    orders = [node.type.order for node in nodes if node.type.order is not None]
    windows = [order for order in orders if isinstance(order, Windows)]
    windows += [node.op.order for node in nodes if isinstance(node.op, MaskIfShifted)]
    outer = [order.outer for order in orders if isinstance(order, Groups2x2)]
    windows += [order for order in outer if isinstance(order, Windows)]
    folded = not any(isinstance(order, Windows) for order in outer) and all(_by_window(node) for node in nodes)
    groups = [order for order in orders if isinstance(order, Groups2x2)]
    return Layouts(
        square=all(_is_square(order) for order in (*orders, *windows)),
        shifted=any(order.shifted for order in windows),
        padded=any(order.padded for order in windows),
        odd=any(order.height % 2 or order.width % 2 for order in groups),
        folded=folded,
    )


def _is_square(order: Order) -> bool:
    square = order.height == order.width
    if isinstance(order, Windows):
        return square and order.window[0] == order.window[1] and order.shift[0] == order.shift[1]
    return square


def _by_window(node: Node) -> bool:
    cut = any(isinstance(x.type.order, Windows) for x in (node, *node.inputs))
    return not cut or isinstance(node.op, WINDOW_BY_WINDOW)
