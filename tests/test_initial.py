"""Initial weights: lawful, reproducible, the same for every backend."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from archdsl.backends.initial import check_weights, initial_tensor, initial_weights
from archdsl.errors import WeightsError
from archdsl.ir.graph import Graph
from archdsl.ir.op import ONES, ZEROS, Init, ParamSpec
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType
from archdsl.ops.linear import Linear
from archdsl.ops.norm import BatchNorm
from archdsl.ops.pointwise import LayerScale


def net(*paths: str) -> Graph:
    g = Graph()
    x = g.input("x", TensorType((4, 8), order=Raster(2, 2)))
    for path in paths:
        x = g.add(Linear(8, 8), x, path=path)
    g.output("y", g.add(LayerScale(8, 0.5), g.add(BatchNorm(8), x, path="norm"), path="gamma"))
    return g


def test_every_tensor_of_the_graph_gets_its_shape_and_float32():
    g = net("fc1")
    weights = initial_weights(g)
    assert {name: w.shape for name, w in weights.items()} == {name: t.shape for name, t in g.tensors().items()}
    assert list(weights) == [
        "fc1.weight", "fc1.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "gamma",
    ]  # fmt: skip
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("init", "value"),
    [(ZEROS, 0), (ONES, 1), (Init("constant", 1e-6), np.float32(1e-6))],
    ids=["zeros", "ones", "constant"],
)
def test_a_constant_law_fills(init, value):
    assert (initial_tensor(ParamSpec((3, 5), init), "t") == value).all()


def test_a_normal_law_has_its_moments_and_the_shape_of_the_normal_law():
    x = initial_tensor(ParamSpec((1000, 1000), Init("normal", 0.02)), "t").astype(np.float64) / 0.02
    assert abs(x.mean()) < 4e-3
    assert abs(x.std() - 1) < 4e-3
    assert abs((x**4).mean() - 3) < 0.05  # kurtosis
    assert [abs((np.abs(x) < k).mean() - p) < 2e-3 for k, p in ((1, 0.6827), (2, 0.9545), (3, 0.9973))] == [True] * 3
    assert np.abs(x).max() < 4.4


def test_a_uniform_law_fills_its_interval_evenly():
    x = initial_tensor(ParamSpec((1000, 1000), Init("uniform", 0.3)), "t")
    counts, _ = np.histogram(x, bins=10, range=(-0.3, 0.3))
    assert counts.sum() == x.size
    assert np.abs(counts / x.size - 0.1).max() < 2e-3


def test_neighbouring_numbers_and_tensors_are_not_correlated():
    a, b = (initial_tensor(ParamSpec((500_000,), Init("normal", 1.0)), name) for name in ("a", "b"))
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 6e-3
    assert abs(np.corrcoef(a, b)[0, 1]) < 6e-3


@pytest.mark.promise(15)
def test_the_same_seed_and_name_give_the_same_numbers_whatever_stands_around():
    alone, among = initial_weights(net("fc1"), seed=3), initial_weights(net("other", "fc1"), seed=3)
    assert (alone["fc1.weight"] == among["fc1.weight"]).all()
    assert (alone["fc1.weight"] != initial_weights(net("fc1"), seed=4)["fc1.weight"]).any()
    assert (among["fc1.weight"] != among["other.weight"]).any()


@pytest.mark.promise(15)
def test_the_numbers_stay_the_same_from_release_to_release():
    laws = Init("normal", 0.02), Init("uniform", 0.02)
    drawn = [initial_tensor(ParamSpec((64, 33), law), "stem.proj.weight", 7) for law in laws]
    assert [hashlib.sha256(x.tobytes()).hexdigest()[:16] for x in drawn] == ["37b0d9192977487a", "416b2b7059b89f1c"]


def test_sizes_that_are_not_multiples_of_four_are_filled():
    assert initial_tensor(ParamSpec((3,), Init("normal", 1.0)), "t").shape == (3,)


def test_missing_and_misshapen_tensors_are_all_named():
    g = net("fc1")
    weights = initial_weights(g)
    del weights["gamma"]
    weights["fc1.weight"] = weights["fc1.weight"][:4]
    with pytest.raises(WeightsError, match=r"^--weights:1:1: 'fc1.weight' must be \[8, 8\], but got \[4") as caught:
        check_weights(g, weights)
    assert [p.rule for p in caught.value.problems] == ["shape", "missing-key"]
