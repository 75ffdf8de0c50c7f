"""The passes that give a network the form a runtime likes: the same numbers, and what they promise about the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx_runs import random_weights

from archdsl.backends.torch import fx as torch_fx
from archdsl.ir.graph import Graph
from archdsl.ir.op import Op
from archdsl.ir.types import TensorType
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Activation, Add
from archdsl.ops.tokens import Slice
from archdsl.passes.network import Network
from archdsl.passes.pad_hidden import ALIASED, EXTRA, pad
from archdsl.passes.runner import Pass, run_passes
from archdsl.passes.split_linears import split

TOKENS = TensorType((5, 8))


def after(each: Pass, g: Graph) -> Network:
    """The network after the pass, which must not change what it computes."""
    weights = random_weights(g)
    network = run_passes(Network(g, weights), [each])[0]
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, *g.inputs[0].type.shape), dtype=np.float32))
    with torch.no_grad():
        results = [torch_fx.emit(*pair).eval()(x) for pair in ((g, weights), (network.graph, network.weights))]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)
    return network


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    return {name: numbers.shape for name, numbers in network.weights.items()}


def sliced(*cuts: tuple[int, int], bias: bool = True) -> Graph:
    """The sum of slices of one linear."""
    g = Graph()
    whole = g.add(Linear(8, 12, bias=bias), g.input("x", TOKENS), path="qkv")
    parts = [g.add(Slice(*cut), whole, path=f"part{i}") for i, cut in enumerate(cuts)]
    for i, part in enumerate(parts[1:]):
        parts[0] = g.add(Add(), parts[0], part, path=f"sum{i}")
    g.output("y", parts[0])
    return g


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_that_is_cut_becomes_one_for_each_part(bias):
    network = after(split, sliced((0, 4), (4, 8), (8, 12), bias=bias))
    weights = {f"part{i}.weight": (4, 8) for i in range(3)}
    assert shapes(network) == weights | ({f"part{i}.bias": (4,) for i in range(3)} if bias else {})


def test_channels_that_nothing_reads_go():
    assert shapes(after(split, sliced((0, 4), (8, 12)))) == {
        "part0.weight": (4, 8),
        "part0.bias": (4,),
        "part1.weight": (4, 8),
        "part1.bias": (4,),
    }


def test_a_linear_that_others_read_stays_whole():
    overlapping = sliced((0, 6), (4, 10))
    lonely = sliced((0, 4))
    seen = sliced((0, 4), (4, 8))
    seen.output("qkv", seen.live()[1])
    for g in (overlapping, lonely):
        assert "qkv.weight" in after(split, g).weights
    assert "qkv.weight" in run_passes(Network(seen, random_weights(seen)), [split])[0].weights


def mlp(hidden: int, *, between: tuple[Op, ...] = (Activation("gelu"),)) -> Graph:
    g = Graph()
    x = g.add(Linear(8, hidden), g.input("x", TOKENS), path="fc1")
    for i, op in enumerate(between):
        x = g.add(op, x, path=f"act{i}")
    g.output("y", g.add(Linear(hidden, 8), x, path="fc2"))
    return g


def test_a_hidden_layer_whose_rows_alias_is_widened_by_zeros():
    network = after(pad, mlp(2 * ALIASED))
    wide = 2 * ALIASED + EXTRA
    assert shapes(network) == {
        "fc1.weight": (wide, 8),
        "fc1.bias": (wide,),
        "fc2.weight": (8, wide),
        "fc2.bias": (8,),
    }
    assert not network.weights["fc1.weight"][-EXTRA:].any()
    assert not network.weights["fc2.weight"][:, -EXTRA:].any()


@pytest.mark.parametrize(
    "g",
    [mlp(ALIASED + 64), mlp(ALIASED, between=()), mlp(ALIASED, between=(Activation("relu"), Activation("gelu")))],
    ids=["other width", "no activation", "two activations"],
)
def test_other_hidden_layers_keep_their_width(g):
    assert shapes(after(pad, g)) == {name: tensor.shape for name, tensor in g.tensors().items()}


def test_a_hidden_layer_that_is_read_elsewhere_keeps_its_width():
    g = mlp(ALIASED)
    g.output("hidden", g.live()[1])
    network = run_passes(Network(g, random_weights(g)), [pad])[0]
    assert network.graph.outputs["hidden"].type.channels == ALIASED
