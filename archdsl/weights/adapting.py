"""Tables of positions for other windows and other image sizes.

A row of a table belongs to an offset between two tokens, or to a place of the image. At equal resolution an offset of
two tokens stays two tokens, so a table for another window is cut or continued around its centre. When the resolution
is another, the whole table is resampled.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from math import ceil, isqrt

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from archdsl.backends.initial import initial_tensor
from archdsl.ir.graph import Graph, Node
from archdsl.ir.order import Raster, Windows
from archdsl.ops.attention import RelativePositionBias
from archdsl.ops.tokens import AddPosition, Reorder

MASK = "attn_mask"
"""Swin's masks, in files that keep them: [windows, area, area], which tells the map that they were made for."""


def adapt_positions(graph: Graph, tensors: MutableMapping[str, Tensor], masks: Mapping[str, Tensor]) -> list[str]:
    """Replace the tables in `tensors` that are for another window or image size. What fits is not touched.

    Args:
        graph: of the network that takes them
        tensors: by our names
        masks: of shifted windows, by the path of their block, where the file has them
    Returns: what was done, in sentences
    Source: crop or pad at equal resolution: own measurements; bicubic: Swin, arXiv 2103.14030, and ViT, 2010.11929
    """
    notes = []
    tables = {node: _side(tensors.get(node.path), node.op) for node in graph.live() if _is_table(node)}
    other = {node: side for node, side in tables.items() if side}
    if other:
        maps = _maps(graph)
        resampled = _other_resolution(maps, other, masks)
        for node, side in other.items():
            assert isinstance(node.op, RelativePositionBias)
            size = _table_size(node.op.window)
            table = tensors[node.path].reshape(side, side, -1).permute(2, 0, 1)
            fitted = _resampled(table, size) if resampled else _centred(table, size)
            tensors[node.path] = fitted.permute(1, 2, 0).reshape(size[0] * size[1], -1).contiguous()
        windows = ", ".join(sorted({f"{(side + 1) // 2} to {_text(node.op)}" for node, side in other.items()}))
        how = "resampled (bicubic), since the image size is another" if resampled else "cut or continued at the centre"
        notes.append(f"{len(other)} tables of relative positions, for windows of {windows}, were {how}")
    for node in graph.live():
        if isinstance(node.op, AddPosition) and node.path in tensors:
            notes += _adapt_embedding(node, node.op, tensors)
    return notes


def _is_table(node: Node) -> bool:
    return isinstance(node.op, RelativePositionBias)


def _text(op: object) -> str:
    assert isinstance(op, RelativePositionBias)
    return str(op.window[0]) if op.window[0] == op.window[1] else f"{op.window[0]}x{op.window[1]}"


def _table_size(window: tuple[int, int]) -> tuple[int, int]:
    return 2 * window[0] - 1, 2 * window[1] - 1


def _side(table: Tensor | None, op: object) -> int:
    """The side of a square table that is for another window than the op's; 0 when it is not one."""
    if table is None or not isinstance(op, RelativePositionBias) or table.ndim != 2 or table.shape[1] != op.heads:
        return 0
    height, width = _table_size(op.window)
    side = isqrt(table.shape[0])
    return side if side**2 == table.shape[0] != height * width and side % 2 else 0


def _maps(graph: Graph) -> dict[str, tuple[int, int]]:
    """The size of the map in each block, by the block's path."""
    found = {}
    for node in graph.live():
        if isinstance(node.op, Reorder) and isinstance(node.op.to, Raster | Windows):
            found[_block(node.path)] = (node.op.to.height, node.op.to.width)
    return found


def _block(path: str) -> str:
    return path.partition(".attn.")[0]


def _other_resolution(
    maps: Mapping[str, tuple[int, int]], tables: Mapping[Node, int], masks: Mapping[str, Tensor]
) -> bool:
    """Whether the tables were learnt on maps of another size than ours.

    A mask tells the area of its map. Without masks: the file's windows do not tile our maps, as they tiled their own.
    """
    known = [
        mask.shape[0] * mask.shape[1] != _tiled(maps[block], isqrt(mask.shape[1]))
        for block, mask in masks.items()
        if block in maps and mask.ndim == 3 and mask.shape[1]
    ]
    if known:
        return any(known)
    sizes = {(maps[_block(node.path)], (side + 1) // 2) for node, side in tables.items() if _block(node.path) in maps}
    return any(height % window or width % window for (height, width), window in sizes)


def _tiled(size: tuple[int, int], window: int) -> int:
    """The tokens of a map that is padded to whole windows."""
    return ceil(size[0] / window) * ceil(size[1] / window) * window**2


def _centred(table: Tensor, size: tuple[int, int]) -> Tensor:
    """[C, H, W] cut to `size` around the centre, or continued with its border: a softmax does not see a constant."""
    height, width = ((want - have) // 2 for want, have in zip(size, table.shape[1:], strict=True))
    inner = table[
        :, max(0, -height) : table.shape[1] - max(0, -height), max(0, -width) : table.shape[2] - max(0, -width)
    ]
    return pad(inner, (max(0, width),) * 2 + (max(0, height),) * 2, mode="replicate")


def _resampled(table: Tensor, size: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """[C, H, W] at another resolution."""
    return interpolate(table[None], size, mode="bicubic", align_corners=False, antialias=antialias)[0]


def _adapt_embedding(node: Node, op: AddPosition, tensors: MutableMapping[str, Tensor]) -> list[str]:
    """Resample the part of a position embedding [1, tokens, C] that belongs to places of a square map."""
    table = tensors[node.path]
    size = _map_of(node)
    if size is None or table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != op.dim:
        return []
    extra = op.num_tokens - size[0] * size[1]
    side = isqrt(max(0, table.shape[1] - extra))
    if table.shape[1] == op.num_tokens or side < 1 or side**2 + extra != table.shape[1]:
        return []
    if op.fixed:
        tensors[node.path] = torch.from_numpy(initial_tensor(op.tensors()[""], node.path))
        return [f"the fixed positions were made anew for {op.num_tokens} tokens, since the image size is another"]
    places = table[0, extra:].reshape(side, side, op.dim).permute(2, 0, 1)
    resampled = _resampled(places, size, antialias=True).permute(1, 2, 0).reshape(1, -1, op.dim)
    tensors[node.path] = torch.cat([table[:, :extra], resampled], dim=1)
    text = f"{side}x{side} to {size[0]}x{size[1]} places"
    return [f"the position embedding was resampled (bicubic) from {text}, since the image size is another"]


def _map_of(node: Node) -> tuple[int, int] | None:
    """The map whose tokens reach an op, before tokens without a place were put among them; None when unknown."""
    while node.inputs:
        order = node.inputs[0].type.order
        if order is not None:
            return (order.height, order.width) if isinstance(order, Raster) else None
        node = node.inputs[0]
    return None
