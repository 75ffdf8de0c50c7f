"""The passes that give a network the form a runtime likes: the same numbers, and what they promise about the graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx_runs import random_weights, run
from same_function import after as same_after
from same_function import difference, inputs, torch_outputs

from archdsl.backends import backend
from archdsl.backends.onnx.dialects import DIALECTS
from archdsl.backends.onnx.model import emit
from archdsl.backends.torch import fx as torch_fx
from archdsl.errors import BackendError
from archdsl.ir.graph import Graph
from archdsl.ir.op import Op
from archdsl.ir.order import Groups2x2, Order, Raster, Windows
from archdsl.ir.types import TensorType
from archdsl.ops.attention import Attention, ShiftMask
from archdsl.ops.linear import Linear
from archdsl.ops.norm import LayerNorm, LayerNormWithOnes
from archdsl.ops.pointwise import Activation, Add
from archdsl.ops.tokens import AppendOnes, MergeGroups, Reorder, Slice
from archdsl.passes.multiply_biases import WIDTH, multiply
from archdsl.passes.network import Network
from archdsl.passes.pad_hidden import ALIASED, EXTRA, pad
from archdsl.passes.places_first import turn
from archdsl.passes.runner import Pass, run_passes
from archdsl.passes.split_linears import split

TOKENS = TensorType((5, 8))
RTX = DIALECTS["tensorrt-rtx"]


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


# --- biases among the weights, places first --------------------------------------------------------------------------

WINDOWS = Windows(6, 6, (3, 2))
PADDED = Windows(6, 6, (4, 4), (2, 2))


def attending(order: Order, *, norm: bool = True, bias: bool = True, mask: bool = False, seen: bool = False) -> Graph:
    """A norm, q, k and v of one linear, attention in windows, and a projection back in raster order."""
    g = Graph()
    x = g.input("x", TensorType((36, 8), order=Raster(6, 6)))
    if norm and order.padded:
        x = g.add(LayerNorm(8, affine=False), x, path="norm")
    x = g.add(Reorder(order), x, path="partition")
    if norm and not order.padded:
        x = g.add(LayerNorm(8, affine=False), x, path="norm")
    qkv = g.add(Linear(8, 24, bias=bias), x, path="qkv")
    q, k, v = (g.add(Slice(8 * i, 8 * i + 8), qkv, path=f"cut{i}") for i in range(3))
    added = (g.add(ShiftMask(order), path="mask"),) if mask and isinstance(order, Windows) else ()
    mixed = g.add(Attention(1 if mask else 2, 0.5), q, k, v, *added, path="attend")
    g.output("y", g.add(Reorder(Raster(6, 6)), g.add(Linear(8, 8), mixed, path="proj"), path="merge"))
    if seen:
        g.output("qkv", qkv)
    return g


@pytest.mark.parametrize("order", [WINDOWS, PADDED, Raster(6, 6)], ids=["windows", "padded", "one window"])
@pytest.mark.parametrize("norm", [True, False])
def test_the_bias_of_q_k_and_v_becomes_a_column(order, norm):
    network = same_after(multiply, graph=attending(order, norm=norm))
    assert "qkv.bias" not in network.weights and "proj.bias" in network.weights
    assert network.weights["qkv.weight"].shape == (24, 8 + WIDTH)
    assert (network.weights["qkv.weight"][:, 9:] == 0).all()
    kinds = [type(node.op) for node in network.graph.live()]
    assert (LayerNormWithOnes in kinds, AppendOnes in kinds) == (
        (True, False) if norm and not order.padded else (False, True)
    )


def test_a_bias_that_others_read_or_that_is_not_there_stays_as_it_is():
    assert (
        "qkv.bias" in run_passes(Network(g := attending(WINDOWS, seen=True), random_weights(g)), [multiply])[0].weights
    )
    g = attending(WINDOWS, bias=False)
    assert multiply.run(Network(g, random_weights(g))).graph.hash() == g.hash()
    assert "fc1.bias" in after(multiply, mlp(12)).weights


@pytest.mark.parametrize("order", [WINDOWS, PADDED, Groups2x2(6, 6, Windows(3, 3, (2, 2)))], ids=str)
@pytest.mark.parametrize("batch", [1, 2, None])
@pytest.mark.parametrize("mask", [False, True])
def test_places_first_gives_the_same_on_every_backend(order, batch, mask):
    if isinstance(order, Groups2x2):
        g = Graph()
        x = g.add(Reorder(order), g.input("x", TensorType((36, 8), order=Raster(6, 6))), path="groups")
        merged = g.add(MergeGroups(), x, path="merge")
        g.output(
            "y", g.add(Reorder(Raster(3, 3)), g.add(Attention(2, 0.5), merged, merged, merged, path="a"), path="b")
        )
    else:
        g = attending(order, mask=mask)
    network = same_after(turn, graph=g)
    orders = {node.type.order for node in network.graph.live() if isinstance(node.type.order, Windows)}
    assert orders and all(order.places_first for order in orders)
    xs = inputs(g, batch or 3)
    model = emit(g, network_weights := random_weights(g), batch=batch, dialect=RTX)
    for got, want in zip(run(model, *xs), torch_outputs(Network(g, network_weights), xs), strict=True):
        assert difference(got, want) <= 1e-5


def test_the_slots_of_places_first_are_those_of_windows_turned():
    order = Windows(6, 6, (3, 2), (1, 1))
    whole, turned = np.array(order.slots()), np.array(replace(order, places_first=True).slots())
    np.testing.assert_array_equal(turned, whole.reshape(order.num_windows, 6).T.reshape(-1))
    assert replace(order, places_first=True).identity_text() != order.identity_text()


def test_a_source_file_refuses_places_first():
    g = run_passes(Network(attending(WINDOWS)), [turn])[0].graph
    with pytest.raises(BackendError, match="the source backend cannot emit the op Attention"):
        backend("source").emit(g)
