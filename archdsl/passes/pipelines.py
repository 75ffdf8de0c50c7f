"""The named pipelines: which passes run, in which order.

| pipeline       | run by                        | the network it gives                                            |
|----------------|-------------------------------|-----------------------------------------------------------------|
| `TRAINING`     | `compile`                     | trainable; tensors keep the reference's names and numbers       |
| `DEPLOYMENT`   | `deploy`                      | for inference; numbers may be rewritten                         |
| `precision`    | `deploy`, after `DEPLOYMENT`  | the same in another number format                               |
| `onnx_dialect` | the onnx backend              | the same in the form that was measured to be fastest on a runtime |
"""

from __future__ import annotations

from collections.abc import Set

from archdsl.ir.types import DType
from archdsl.passes.average_linears import average
from archdsl.passes.common_subexpressions import merge
from archdsl.passes.drop_train_only import drop
from archdsl.passes.fold_constants import fold as fold_constants
from archdsl.passes.fold_norms import fold as fold_norms
from archdsl.passes.fold_scales import fold as fold_scales
from archdsl.passes.fold_shifts import fold as fold_shifts
from archdsl.passes.multiply_biases import multiply
from archdsl.passes.pad_hidden import pad
from archdsl.passes.places_first import turn
from archdsl.passes.propagate_layouts import propagate
from archdsl.passes.runner import Pass
from archdsl.passes.set_precision import in_dtype
from archdsl.passes.split_linears import split

TRAINING: tuple[Pass, ...] = (propagate,)

DEPLOYMENT: tuple[Pass, ...] = (
    propagate,
    drop,
    fold_norms,
    fold_scales,
    fold_shifts,
    average,
    fold_constants,
    merge,
    propagate,
)
"""Layouts are propagated first, so that `fold_norms` finds the linear behind a norm near it, and again last, because
norms that are gone no longer hold a value in their order."""


def precision(dtype: DType, keep: Set[str] = frozenset()) -> tuple[Pass, ...]:
    """Args: keep: paths of nodes that stay fp32"""
    return () if dtype == "f32" else (in_dtype(dtype, keep),)


def onnx_dialect(
    *, split_products: bool, pad_products: bool, biases_multiplied: bool, windows_places_first: bool
) -> tuple[Pass, ...]:
    """Args: see `backends.onnx.dialects.Dialect`, where the measurements are"""
    wanted = {split: split_products, pad: pad_products, multiply: biases_multiplied, turn: windows_places_first}
    return tuple(each for each, asked in wanted.items() if asked)
