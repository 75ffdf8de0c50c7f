"""Planes at another size: resized, pooled to a size, and convolutions whose kernels have holes, in every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.source import file as source
from archdsl.backends.torch import fx as torch_fx
from archdsl.errors import RuleBroken
from archdsl.ir.graph import Graph
from archdsl.ir.op import Op
from archdsl.ir.order import Planes, Raster
from archdsl.ir.types import TensorType
from archdsl.ops.linear import Conv2d
from archdsl.ops.pooling import AdaptivePool, Resize

PLANES = TensorType((4, 7, 6), order=Planes(7, 6))
X = np.random.default_rng(1).normal(size=(2, 4, 7, 6)).astype(np.float32)


def computed(op: Op) -> dict[str, np.ndarray]:
    """What each backend makes of X: ONNX for a fixed and a dynamic batch, and in the oldest opset."""
    g = Graph()
    g.output("y", g.add(op, g.input("x", PLANES), path="y"))
    found = {"torch": torch_fx.emit(g)(torch.from_numpy(X)).detach().numpy()}
    for batch, opset in ((2, None), (None, None), (None, 13), (2, 13)):
        model = onnx_model.serialize(onnx_model.emit(g, batch=batch, opset=opset))
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        found[f"onnx {batch} {opset}"] = session.run(None, {"x": X})[0]
    names: dict[str, Any] = {}
    exec(source.emit(g), names)
    network = names["Network"]()
    network.load_state_dict(torch_fx.emit(g).state_dict())
    found["source"] = network(torch.from_numpy(X)).detach().numpy()
    return found


def interpolated(side: int, size: int, op: Resize) -> np.ndarray:
    """How much of each of `side` places is in each of `size`: [size, side]."""
    rows = np.zeros((size, side))
    for i, row in enumerate(rows):
        if op.mode == "nearest":
            row[i * side // size] = 1
            continue
        at = i * (side - 1) / max(size - 1, 1) if op.align_corners else (i + 0.5) * side / size - 0.5
        at = min(max(at, 0), side - 1)
        low = min(int(at), side - 1)
        row[low] += 1 - (at - low)
        row[min(low + 1, side - 1)] += at - low
    return rows


def averaged(side: int, size: int) -> np.ndarray:
    """The share of each of `side` places in each of `size` neighbourhoods: [size, side]."""
    starts, stops = (np.floor(np.arange(size) * side / size), np.ceil(np.arange(1, size + 1) * side / size))
    inside = (np.arange(side) >= starts[:, None]) & (np.arange(side) < stops[:, None])
    return inside / inside.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(14, 12), (13, 9), (3, 4), (1, 1), (7, 6)], ids=str)
@pytest.mark.parametrize("how", [("nearest", False), ("bilinear", False), ("bilinear", True)], ids=str)
def test_a_map_is_resized_by_the_formula_in_every_backend(size: tuple[int, int], how: tuple[Any, bool]):
    op = Resize(*size, *how)
    want = np.einsum("yh,bchw,xw->bcyx", interpolated(7, size[0], op), X, interpolated(6, size[1], op))
    for backend, got in computed(op).items():
        assert got.shape == want.shape, backend
        assert np.abs(got - want).max() < 1e-5, backend


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (3, 4), (9, 6), (1, 2)], ids=str)
def test_neighbourhoods_of_a_pooling_cover_the_map_in_every_backend(size: tuple[int, int]):
    want = np.einsum("yh,bchw,xw->bcyx", averaged(7, size[0]), X, averaged(6, size[1]))
    for backend, got in computed(AdaptivePool(*size)).items():
        assert got.shape == want.shape, backend
        assert np.abs(got - want).max() < 1e-6, backend


def test_a_dilated_convolution_reads_places_that_lie_apart_in_every_backend():
    found = computed(Conv2d(4, 5, 3, 2, 3, dilation=3, bias=False))
    g = Graph()
    g.output("y", g.add(Conv2d(4, 5, 3, 2, 3, dilation=3, bias=False), g.input("x", PLANES), path="y"))
    weight = torch_fx.emit(g).state_dict()["y.weight"].numpy()
    padded = np.pad(X, ((0, 0), (0, 0), (3, 3), (3, 3)))
    want = np.zeros((2, 5, 4, 3))
    for y, x in np.ndindex(4, 3):
        read = padded[:, :, 2 * y : 2 * y + 7 : 3, 2 * x : 2 * x + 7 : 3]
        want[:, :, y, x] = np.einsum("bcij,dcij->bd", read, weight)
    for backend, got in found.items():
        assert got.shape == want.shape, backend
        assert np.abs(got - want).max() < 1e-5, backend


def test_what_does_not_fit_is_refused():
    with pytest.raises(RuleBroken, match="nearest"):
        Resize(4, 4, "nearest", True).infer(PLANES)
    with pytest.raises(RuleBroken, match="planes"):
        Resize(4, 4).infer(PLANES.in_order(Raster(7, 6)))
    with pytest.raises(RuleBroken, match="planes"):
        AdaptivePool(1, 1).infer(PLANES.in_order(Raster(7, 6)))
    with pytest.raises(RuleBroken, match="a kernel of 9 does not fit"):
        Conv2d(4, 4, 3, dilation=4).infer(PLANES)
    assert Conv2d(4, 4, 3).identity_text() == (
        "Conv2d(c_in=4, c_out=4, kernel=3, stride=1, padding=0, groups=1, bias=True, init=None)"
    )
    assert "dilation=2" in Conv2d(4, 4, 3, dilation=2).identity_text()
