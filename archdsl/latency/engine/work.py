"""What one kernel of an engine does: its kind of work, and the matrix products in it.

A kernel that TensorRT generates is named by the ops fused into it, abbreviated (`__myl_AddReshTranReshMove_myl0_4`);
its shapes say the rest. A product is [rows, depth] x [depth, columns], `count` times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from archdsl.backends.trt.build_log import Kernel, Tensor
from archdsl.backends.trt.report import generated_from, only_moves

Work = Literal["attention", "product", "convolution", "norm", "softmax", "pointwise", "data movement"]
WORKS: tuple[Work, ...] = get_args(Work)

SMALLEST_WEIGHT = 256
"""Numbers in a weight at least: smaller constants of a fused product are scales and biases."""

TOKENS = 64
"""Rows, and columns of the logits, that a block of an attention kernel computes at once."""

DEPTH = 16
"""Numbers that a tensor core sums at once: the depth of a product is filled up to a multiple."""

TILES = ((128, 128), (128, 64), (64, 128), (64, 64), (64, 32), (32, 64), (32, 32))
"""Rows and columns of a product's result that a block computes."""


@dataclass(frozen=True)
class MatrixProduct:
    """`count` products [rows, depth] x [depth, columns]. tensor_cores: not for depthwise convolutions"""

    count: int
    rows: int
    columns: int
    depth: int
    tensor_cores: bool = True

    @property
    def flops(self) -> int:
        """A multiply-add is 2."""
        return 2 * self.count * self.rows * self.columns * self.depth


def work_of(kernel: Kernel) -> Work:
    """The kind of work that takes most of a kernel's time. Adding a bias while moving is moving."""
    words = generated_from(kernel.name)
    if kernel.layer.kind == "attention":
        return "attention"
    if kernel.layer.kind == "convolution":
        return "convolution"
    if kernel.type == "gemm" or "Fc" in words or _is_small_product(words, kernel):
        return "product"
    if "Exp" in words or kernel.layer.kind == "softmax":
        return "softmax"
    if {"Mean", "Sqrt"} & set(words) or kernel.layer.kind == "normalization":
        return "norm"
    is_biased = len(kernel.inputs) == 1 and set(words) - {"Add", "Cast"}
    moving = [word for word in words if word != "Add"] if is_biased else words
    if only_moves(moving) or kernel.layer.kind in ("shuffle", "cast", "reformat"):
        return "data movement"
    return "pointwise"


def _is_small_product(words: Sequence[str], kernel: Kernel) -> bool:
    """Whether a product is so small that TensorRT multiplies and sums number by number: `MulSum` with a weight."""
    return "Mul" in words and "Sum" in words and "Exp" not in words and bool(_weights(kernel))


def _weights(kernel: Kernel) -> list[tuple[int, ...]]:
    """The shapes of the matrices among a kernel's constants."""
    shapes = (x.shape for x in kernel.constants if len(x.shape) >= 2 and prod(x.shape) >= SMALLEST_WEIGHT)
    return [shape for shape in shapes if min(shape[-2:]) > 1]


def products_of(kernel: Kernel) -> tuple[MatrixProduct, ...]:
    """The products in a kernel; none where its shapes are open or not what such a kernel has."""
    work = work_of(kernel)
    if not kernel.inputs or not kernel.outputs or any(-1 in x.shape for x in kernel.inputs + kernel.outputs):
        return ()
    if work == "attention":
        return _attention(kernel.inputs)
    if work == "convolution":
        return _convolution(kernel)
    return _product(kernel) if work == "product" else ()


def _attention(inputs: Sequence[Tensor]) -> tuple[MatrixProduct, ...]:
    """Two for each head: queries [heads, N, d] by keys [heads, M, d] or [heads, d, M], and the weights by values."""
    if len(inputs) < 2 or min(len(inputs[0].shape), len(inputs[1].shape)) < 3:
        return ()
    *heads, queries, depth = inputs[0].shape
    keys = inputs[1].shape[-1] if inputs[1].shape[-2] == depth else inputs[1].shape[-2]
    return (
        MatrixProduct(prod(heads), queries, keys, depth),
        MatrixProduct(prod(heads), queries, depth, keys),
    )


def _convolution(kernel: Kernel) -> tuple[MatrixProduct, ...]:
    """As one product of patches: rows are places. The weight is [C_out, C_in / groups, height, width]."""
    weights = [x.shape for x in kernel.constants if len(x.shape) >= 4 and prod(x.shape[2:]) * x.shape[0] > 1]
    if not weights:
        return ()
    weight, out = max(weights, key=prod), kernel.outputs[0]
    channels, depth = weight[0], prod(weight[1:])
    places = prod(out.shape) // channels
    if weight[1] == 1 and channels > 1 and kernel.inputs[0].shape[1] >= channels:  # depthwise
        return (MatrixProduct(channels, places, 1, depth, tensor_cores=False),)
    return (MatrixProduct(1, places, channels, depth),)


def _product(kernel: Kernel) -> tuple[MatrixProduct, ...]:
    """With a weight that is in the engine, else of two inputs, batch by batch."""
    out = kernel.outputs[0].shape
    if weights := _weights(kernel):
        *outer, depth, columns = max(weights, key=prod)
        count, is_small = prod(outer), _is_small_product(generated_from(kernel.name), kernel)
        if prod(out) % (columns * count):  # a fully connected layer has its weight as [out, in]
            depth, columns = columns, depth
        rows = max(1, prod(out) // (columns * count))
        return (MatrixProduct(count, rows, columns, depth, tensor_cores=not is_small),)
    if len(kernel.inputs) < 2 or min(len(x.shape) for x in kernel.inputs[:2]) < 2:
        return ()
    (*batches, depth, columns), rows = kernel.inputs[1].shape, kernel.inputs[0].shape[-2]
    return (MatrixProduct(prod(batches), rows, columns, depth),)


def filled(product: MatrixProduct, tile: tuple[int, int]) -> tuple[int, int]:
    """The blocks of a product in tiles, and the FLOPs of all of them with what fills up their edges."""
    blocks = product.count * -(-product.rows // tile[0]) * -(-product.columns // tile[1])
    return blocks, 2 * blocks * tile[0] * tile[1] * _up(product.depth, DEPTH)


def filled_attention(products: Sequence[MatrixProduct]) -> tuple[int, int]:
    """The blocks of an attention kernel, one for TOKENS queries of a head, and their FLOPs with what fills them up."""
    logits = products[0]
    blocks = logits.count * -(-logits.rows // TOKENS)
    return blocks, 4 * blocks * TOKENS * _up(logits.columns, TOKENS) * _up(logits.depth, DEPTH)


def padding_of(kernel: Kernel) -> tuple[int, int] | None:
    """The FLOPs that a kernel has to do, and those of its tiles when they waste least; None without tensor cores."""
    products = products_of(kernel)
    if not products or not all(product.tensor_cores for product in products):
        return None
    useful = sum(product.flops for product in products)
    if work_of(kernel) == "attention":
        return useful, filled_attention(products)[1]
    return useful, sum(min(filled(product, tile)[1] for tile in TILES) for product in products)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
