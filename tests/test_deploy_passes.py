"""The passes for deployment, one by one: as text before and after, and by numbers on PyTorch and ONNX Runtime.

Every `after(…)` also asserts that the new network computes what the old one does, with random weights for all tensors.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx_runs import random_weights
from random_networks import GROUPS, PADDED, PLANES, RASTER, SHIFTED, WINDOWS, Drawing
from same_function import after, assert_same_function, depends_on_the_input, inputs, torch_outputs

from archdsl.ir.graph import Graph, Value
from archdsl.ir.order import Groups2x2, Order, Planes, Windows
from archdsl.ir.types import TensorType
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, TokenAffine, TokenBatchNorm
from archdsl.ops.pointwise import Activation, Add, Dropout, DropPath, LayerScale
from archdsl.ops.tokens import AddPosition, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken
from archdsl.ops.values import Constant
from archdsl.passes import fold_constants as constants_module
from archdsl.passes.common_subexpressions import merge
from archdsl.passes.drop_train_only import drop
from archdsl.passes.fold_constants import fold as fold_constants
from archdsl.passes.fold_norms import fold as fold_norms
from archdsl.passes.fold_scales import fold as fold_scales
from archdsl.passes.network import Network
from archdsl.passes.pipelines import DEPLOYMENT
from archdsl.passes.propagate_layouts import propagate
from archdsl.passes.runner import Pass, PassBroken, run_passes

NORMS = [LayerNorm(8), BatchNorm(8)]


def tokens(g: Graph, order: Order = RASTER, name: str = "x") -> Value:
    return g.input(name, TensorType((16, 8), order=RASTER).in_order(order))


def text(graph: Graph) -> str:
    """Like `Graph.text`, without the types and the inputs."""
    lines = [
        f"{node.path} = {node.op}" + (f" <- {', '.join(x.path for x in node.inputs)}" if node.inputs else "")
        for node in graph.live()
        if node not in graph.inputs
    ]
    return "\n".join([*lines, *(f"{name}: {node.path}" for name, node in graph.outputs.items())])


def ops(graph: Graph, *kinds: type) -> list[str]:
    """The ops of these kinds in order."""
    return [str(node.op) for node in graph.live() if isinstance(node.op, kinds)]


def plain(norm: LayerNorm | BatchNorm) -> list[str]:
    """What is left of a norm that has been folded."""
    return ["LayerNorm(dim=8, affine=False)"] if isinstance(norm, LayerNorm) else []


def kept(norm: LayerNorm | BatchNorm) -> list[str]:
    """What is left of a norm that could not be folded."""
    return ["LayerNorm(dim=8)"] if isinstance(norm, LayerNorm) else ["Affine(dim=8)"]


def norms(graph: Graph) -> list[str]:
    return ops(graph, LayerNorm, BatchNorm, TokenBatchNorm, Affine, TokenAffine)


# drop_train_only


def test_dropout_and_drop_path_disappear():
    g = Graph()
    x = tokens(g)
    y = g.add(DropPath(0.1), g.add(Dropout(0.2), g.add(Linear(8, 8), x, path="fc"), path="drop"), path="path")
    g.output("y", g.add(Add(), x, y, path="sum"))
    assert text(after(drop, graph=g).graph) == "fc = Linear(d_in=8, d_out=8) <- x\nsum = Add() <- x, fc\ny: sum"


def test_a_dropout_that_is_an_output_hands_on_its_input():
    g = Graph()
    g.output("y", g.add(Dropout(0.2), g.add(Linear(8, 8), tokens(g), path="fc"), path="drop"))
    assert text(after(drop, graph=g).graph) == "fc = Linear(d_in=8, d_out=8) <- x\ny: fc"


# fold_norms: into what follows


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_goes_into_the_linear_that_reads_it(norm):
    g = Graph()
    g.output("y", g.add(Linear(8, 4), g.add(norm, tokens(g), path="norm"), path="fc"))
    network = after(fold_norms, graph=g)
    if isinstance(norm, LayerNorm):
        assert text(network.graph) == (
            "norm = LayerNorm(dim=8, affine=False) <- x\nfc = Linear(d_in=8, d_out=4) <- norm\ny: fc"
        )
    else:
        assert text(network.graph) == "fc = Linear(d_in=8, d_out=4) <- x\ny: fc"
    assert set(network.weights) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_linear_without_a_bias_gets_one(norm):
    g = Graph()
    g.output("y", g.add(Linear(8, 4, bias=False), g.add(norm, tokens(g), path="norm"), path="fc"))
    assert "fc = Linear(d_in=8, d_out=4) <- " in text(after(fold_norms, graph=g).graph)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_goes_into_all_the_linears_that_read_it(norm):
    g = Graph()
    y = g.add(norm, tokens(g), path="norm")
    for name, width in (("a", 3), ("b", 5), ("c", 8)):
        g.output(name, g.add(Linear(8, width, bias=name != "b"), y, path=name))
    assert norms(after(fold_norms, graph=g).graph) == plain(norm)


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_goes_into_a_convolution_by_the_channels_of_its_groups(norm, groups: int, bias: bool):
    g = Graph()
    y = g.add(Reorder(PLANES), g.add(norm, tokens(g), path="norm"), path="planes")
    g.output("y", g.add(Conv2d(8, 16, 2, stride=2, groups=groups, bias=bias), y, path="conv"))
    assert norms(after(fold_norms, graph=g).graph) == plain(norm)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_stays_before_a_convolution_with_padding(norm):
    """The zeros that the convolution adds are not shifted."""
    g = Graph()
    y = g.add(Reorder(PLANES), g.add(norm, tokens(g), path="norm"), path="planes")
    g.output("y", g.add(Conv2d(8, 8, 3, padding=1), y, path="conv"))
    assert norms(after(fold_norms, graph=g).graph) == kept(norm)


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("order", [WINDOWS, SHIFTED, GROUPS], ids=str)
def test_a_norm_goes_through_a_reorder(norm, order: Order):
    g = Graph()
    y = g.add(Reorder(order), g.add(norm, tokens(g), path="norm"), path="there")
    g.output("y", g.add(Linear(8, 8), y, path="fc"))
    assert norms(after(fold_norms, graph=g).graph) == plain(norm)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_that_shifts_stays_before_a_reorder_that_pads(norm):
    g = Graph()
    y = g.add(Reorder(PADDED), g.add(norm, tokens(g), path="norm"), path="pad")
    g.output("y", g.add(Linear(8, 8), y, path="fc"))
    assert norms(after(fold_norms, graph=g).graph) == kept(norm)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_that_only_scales_goes_through_a_reorder_that_pads(norm):
    g = Graph()
    y = g.add(Reorder(PADDED), g.add(norm, tokens(g), path="norm"), path="pad")
    g.output("y", g.add(Linear(8, 8), y, path="fc"))
    zeros = {"norm.bias": np.zeros(8, np.float32), "norm.running_mean": np.zeros(8, np.float32)}
    weights = random_weights(g)
    weights |= {name: zeros[name] for name in zeros if name in weights}
    assert norms(after(fold_norms, graph=g, weights=weights).graph) == plain(norm)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_goes_through_patch_merging_four_times(norm):
    g = Graph()
    y = g.add(Reorder(GROUPS), g.add(norm, tokens(g), path="norm"), path="gather")
    y = g.add(MergeGroups(), y, path="merge")
    g.output("y", g.add(Linear(32, 6, bias=False), y, path="reduce"))
    assert norms(after(fold_norms, graph=g).graph) == plain(norm)


@pytest.mark.parametrize("norm", [LayerNorm(32), BatchNorm(32)], ids=str)
def test_the_norm_of_patch_merging_goes_into_its_linear(norm):
    g = Graph()
    y = g.add(MergeGroups(), g.add(Reorder(GROUPS), tokens(g), path="gather"), path="merge")
    g.output("y", g.add(Linear(32, 6, bias=False), g.add(norm, y, path="norm"), path="reduce"))
    found = after(fold_norms, graph=g).graph
    assert norms(found) == (["LayerNorm(dim=32, affine=False)"] if isinstance(norm, LayerNorm) else [])


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("pool", [MeanPool(), TakeToken(3)], ids=str)
def test_a_norm_goes_through_the_choice_of_one_vector(norm, pool):
    g = Graph()
    g.output("y", g.add(Linear(8, 4), g.add(pool, g.add(norm, tokens(g), path="norm"), path="pool"), path="fc"))
    assert norms(after(fold_norms, graph=g).graph) == plain(norm)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_goes_through_the_mean_of_planes(norm):
    g = Graph()
    y = g.add(Reorder(PLANES), g.add(norm, tokens(g), path="norm"), path="planes")
    g.output("y", g.add(Linear(8, 4), g.add(MeanPool(), y, path="pool"), path="fc"))
    assert norms(after(fold_norms, graph=g).graph) == plain(norm)


def read_by_a_sum(g: Graph, y: Value) -> Value:
    return g.add(Add(), y, g.add(Linear(8, 8), y, path="fc"), path="sum")


def read_by_a_sum_in_another_order(g: Graph, y: Value) -> Value:
    there = g.add(Reorder(WINDOWS), y, path="there")
    return g.add(Add(), there, g.add(Linear(8, 8), there, path="fc"), path="sum")


def read_as_an_output(g: Graph, y: Value) -> Value:
    g.output("norm", y)
    return g.add(Linear(8, 8), y, path="fc")


def read_as_an_output_in_another_order(g: Graph, y: Value) -> Value:
    there = g.add(Reorder(WINDOWS), y, path="there")
    g.output("norm", there)
    return g.add(Linear(8, 8), there, path="fc")


def read_by_a_slice(g: Graph, y: Value) -> Value:
    return g.add(Linear(5, 8), g.add(Slice(2, 7), y, path="slice"), path="fc")


def read_by_an_activation(g: Graph, y: Value) -> Value:
    return g.add(Linear(8, 8), g.add(Activation("gelu"), y, path="act"), path="fc")


def read_by_attention(g: Graph, y: Value) -> Value:
    return g.add(Linear(8, 8), g.add(Attention(2, 0.5), y, y, y, path="attend"), path="fc")


def read_beside_a_position(g: Graph, y: Value) -> Value:
    return g.add(Linear(8, 8), g.add(AddPosition(16, 8), y, path="position"), path="fc")


def read_beside_a_token(g: Graph, y: Value) -> Value:
    return g.add(Linear(8, 8), g.add(PrependToken(8), y, path="token"), path="fc")


def read_by_a_convolution_with_padding_too(g: Graph, y: Value) -> Value:
    planes = g.add(Reorder(PLANES), y, path="planes")
    g.output("z", g.add(Conv2d(8, 8, 3, padding=1), planes, path="conv"))
    return g.add(Linear(8, 8), y, path="fc")


READERS = [
    read_by_a_sum,
    read_by_a_sum_in_another_order,
    read_as_an_output,
    read_as_an_output_in_another_order,
    read_by_a_slice,
    read_by_an_activation,
    read_by_attention,
    read_beside_a_position,
    read_beside_a_token,
    read_by_a_convolution_with_padding_too,
]


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_norm_stays_that_something_else_than_linears_needs(norm, reader):
    g = Graph()
    g.output("y", reader(g, g.add(norm, tokens(g), path="norm")))
    assert norms(after(fold_norms, graph=g).graph) == kept(norm)


# fold_norms: into what comes before


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_goes_into_the_linear_before_it_when_no_linear_follows(bias: bool):
    g = Graph()
    y = g.add(BatchNorm(8), g.add(Linear(8, 8, bias=bias), tokens(g), path="fc"), path="norm")
    g.output("y", g.add(Activation("relu"), y, path="act"))
    want = "fc = Linear(d_in=8, d_out=8) <- x\nact = Activation(name=relu) <- fc\ny: act"
    assert text(after(fold_norms, graph=g).graph) == want


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_batch_norm_goes_into_the_convolution_before_it(groups: int):
    """By the rows of its weight, whatever its padding and groups."""
    g = Graph()
    x = tokens(g, PLANES)
    y = g.add(Reorder(RASTER), g.add(Conv2d(8, 16, 3, padding=1, groups=groups), x, path="conv"), path="tokens")
    y = g.add(Reorder(SHIFTED), y, path="windows")
    g.output("y", g.add(Activation("relu"), g.add(BatchNorm(16), y, path="norm"), path="act"))
    assert norms(after(fold_norms, graph=g).graph) == []


def test_a_batch_norm_stays_after_a_linear_that_others_read():
    g = Graph()
    fc = g.add(Linear(8, 8), tokens(g), path="fc")
    y = g.add(Activation("relu"), g.add(BatchNorm(8), fc, path="norm"), path="act")
    g.output("y", g.add(Add(), y, fc, path="sum"))
    assert norms(after(fold_norms, graph=g).graph) == ["Affine(dim=8)"]


def test_a_batch_norm_stays_after_a_linear_that_others_read_in_another_order():
    g = Graph()
    there = g.add(Reorder(WINDOWS), g.add(Linear(8, 8), tokens(g), path="fc"), path="there")
    y = g.add(Activation("relu"), g.add(BatchNorm(8), there, path="norm"), path="act")
    g.output("y", g.add(Add(), y, there, path="sum"))
    assert norms(after(fold_norms, graph=g).graph) == ["Affine(dim=8)"]


def test_a_batch_norm_stays_after_a_linear_that_is_an_output():
    g = Graph()
    fc = g.add(Linear(8, 8), tokens(g), path="fc")
    g.output("fc", fc)
    g.output("y", g.add(Activation("relu"), g.add(BatchNorm(8), fc, path="norm"), path="act"))
    assert norms(after(fold_norms, graph=g).graph) == ["Affine(dim=8)"]


def test_a_batch_norm_after_padding_that_was_dropped_folds_once_reorders_are_settled():
    g = Graph()
    y = g.add(Reorder(PADDED), g.add(Linear(8, 8), tokens(g), path="fc"), path="pad")
    y = g.add(BatchNorm(8), g.add(Reorder(RASTER), y, path="back"), path="norm")
    g.output("y", g.add(Activation("relu"), y, path="act"))
    assert norms(after(fold_norms, graph=g).graph) == ["Affine(dim=8)"]
    assert norms(after(*DEPLOYMENT, graph=g).graph) == []


def test_a_layer_norm_never_goes_into_the_linear_before_it():
    g = Graph()
    y = g.add(LayerNorm(8), g.add(Linear(8, 8), tokens(g), path="fc"), path="norm")
    g.output("y", g.add(Activation("relu"), y, path="act"))
    assert norms(after(fold_norms, graph=g).graph) == ["LayerNorm(dim=8)"]


def test_a_linear_between_two_batch_norms_takes_both():
    """First what comes in, then what goes out: the other way round is another function."""
    g = Graph()
    y = g.add(Linear(8, 8), g.add(BatchNorm(8), tokens(g), path="before"), path="fc")
    g.output("y", g.add(Activation("relu"), g.add(BatchNorm(8), y, path="after"), path="act"))
    want = "fc = Linear(d_in=8, d_out=8) <- x\nact = Activation(name=relu) <- fc\ny: act"
    assert text(after(fold_norms, graph=g).graph) == want


@pytest.mark.parametrize("first", NORMS, ids=str)
@pytest.mark.parametrize("second", NORMS, ids=str)
def test_two_norms_in_a_row_fold_one_after_the_other(first, second):
    g = Graph()
    y = g.add(second, g.add(first, tokens(g), path="first"), path="second")
    g.output("y", g.add(Linear(8, 4), y, path="fc"))
    stays = kept(first) if isinstance(second, LayerNorm) else plain(first)
    assert norms(after(fold_norms, graph=g).graph) == stays + plain(second)


def test_a_batch_norm_without_a_linear_beside_it_becomes_an_affine():
    g = Graph()
    y = g.add(BatchNorm(8), g.add(Activation("gelu"), tokens(g), path="act"), path="norm")
    g.output("y", g.add(Add(), y, g.add(Activation("gelu"), y, path="act2"), path="sum"))
    network = after(fold_norms, graph=g)
    assert "norm = Affine(dim=8) <- act" in text(network.graph)
    assert set(network.weights) == {"norm.weight", "norm.bias"}


def test_the_statistics_and_eps_of_a_batch_norm_count():
    """By a formula: 3 * (x - 5) / sqrt(0.25 + 0.75) + 7 is 3 x - 8."""
    g = Graph()
    g.output("y", g.add(BatchNorm(8, eps=0.75), tokens(g), path="norm"))
    numbers = {"weight": 3, "bias": 7, "running_mean": 5, "running_var": 0.25}
    weights = {f"norm.{key}": np.full(8, value, np.float32) for key, value in numbers.items()}
    found = after(fold_norms, graph=g, weights=weights).weights
    assert found["norm.weight"] == pytest.approx(3) and found["norm.bias"] == pytest.approx(-8)


@pytest.mark.parametrize("order", [WINDOWS, SHIFTED, GROUPS, Groups2x2(4, 4, Windows(2, 2, (1, 2)))], ids=str)
def test_a_token_batch_norm_is_done_in_the_order_that_its_tokens_are_in(order: Order):
    """Its numbers change places, so that the tokens need not."""
    g = Graph()
    y = g.add(TokenBatchNorm(16), g.add(Reorder(RASTER), tokens(g, order), path="back"), path="norm")
    g.output("y", g.add(Reorder(order), y, path="again"))
    network = after(fold_norms, propagate, graph=g)
    assert text(network.graph) == "norm = TokenAffine(num_tokens=16) <- x\ny: norm"


@pytest.mark.parametrize("order", [PLANES, PADDED], ids=str)
def test_a_token_batch_norm_of_planes_or_padded_windows_stays_in_raster_order(order: Order):
    g = Graph()
    x = tokens(g, order) if order is PLANES else g.add(Reorder(order), tokens(g), path="pad")
    y = g.add(
        TokenBatchNorm(16), g.add(Reorder(RASTER), g.add(Activation("relu"), x, path="act"), path="back"), path="norm"
    )
    g.output("y", y)
    found = after(fold_norms, graph=g).graph
    (node,) = (node for node in found.live() if isinstance(node.op, TokenAffine))
    assert node.type.order == RASTER


def test_a_token_batch_norm_of_a_value_that_others_read_in_raster_order():
    g = Graph()
    back = g.add(Reorder(RASTER), tokens(g, SHIFTED), path="back")
    y = g.add(TokenBatchNorm(16), back, path="norm")
    g.output("y", g.add(Add(), y, back, path="sum"))
    after(fold_norms, graph=g)
    after(fold_norms, propagate, graph=g)


# fold_scales


def q_k_v(g: Graph, *cuts: tuple[int, int], bias: bool = True) -> tuple[list[Value], Value]:
    """The slices of one linear, and that linear."""
    qkv = g.add(Linear(8, 24, bias=bias), tokens(g, WINDOWS), path="qkv")
    return [g.add(Slice(*cut), qkv, path=name) for cut, name in zip(cuts, "qkv", strict=True)], qkv


THIRDS = ((0, 8), (8, 16), (16, 24))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_the_scale_of_the_logits_goes_into_the_rows_that_make_q(bias: bool, order: tuple[int, ...]):
    g = Graph()
    parts, _ = q_k_v(g, *(THIRDS[i] for i in order), bias=bias)
    g.output("y", g.add(Attention(2, 0.3), *parts, path="attend"))
    weights = random_weights(g)
    network = after(fold_scales, graph=g, weights=weights)
    assert ops(network.graph, Attention) == ["Attention(heads=2, scale=1.0)"]
    start, stop = THIRDS[order[0]]
    ratio = network.weights["qkv.weight"] / weights["qkv.weight"]
    want = np.ones(24)
    want[start:stop] = 0.3
    assert ratio == pytest.approx(np.broadcast_to(want[:, None], ratio.shape))


def test_the_scale_goes_into_a_linear_that_makes_q_alone():
    g = Graph()
    x = tokens(g, WINDOWS)
    q, k, v = (g.add(Linear(8, 8), x, path=name) for name in "qkv")
    g.output("y", g.add(Attention(2, 0.3), q, k, v, path="attend"))
    assert ops(after(fold_scales, graph=g).graph, Attention) == ["Attention(heads=2, scale=1.0)"]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("order", [WINDOWS, PADDED], ids=str)
def test_the_scale_goes_through_reorders(cut: bool, order: Order):
    g = Graph()
    x = tokens(g)
    q = g.add(Linear(8, 24 if cut else 8), x, path="q")
    k, v = (g.add(Reorder(order), g.add(Linear(8, 8), x, path=name), path=f"{name}r") for name in "kv")
    q = g.add(Slice(8, 16), q, path="slice") if cut else q
    q = g.add(Reorder(order), g.add(Reorder(SHIFTED), q, path="there"), path="on")
    g.output("y", g.add(Attention(2, 0.3), q, k, v, path="attend"))
    assert ops(after(fold_scales, graph=g).graph, Attention) == ["Attention(heads=2, scale=1.0)"]


def q_is_k_too(g: Graph) -> list[Value]:
    (q, _, v), _ = q_k_v(g, *THIRDS)
    return [q, q, v]


def q_is_made_twice(g: Graph) -> list[Value]:
    (q, k, v), _ = q_k_v(g, (0, 8), (0, 8), (16, 24))
    return [q, k, v]


def q_shares_channels_with_k(g: Graph) -> list[Value]:
    (q, k, v), _ = q_k_v(g, (0, 8), (4, 12), (16, 24))
    return [q, k, v]


def q_holds_the_channels_of_k(g: Graph) -> list[Value]:
    qkv = g.add(Linear(8, 24), tokens(g, WINDOWS), path="qkv")
    q, v = g.add(Slice(4, 20), qkv, path="q"), g.add(Slice(16, 24), qkv, path="v")
    return [q, g.add(Linear(8, 16), tokens(g, WINDOWS, "z"), path="k"), v]


def q_is_read_elsewhere(g: Graph) -> list[Value]:
    (q, k, v), _ = q_k_v(g, *THIRDS)
    g.output("act", g.add(Activation("relu"), q, path="act"))
    return [q, k, v]


def q_is_an_output(g: Graph) -> list[Value]:
    (q, k, v), _ = q_k_v(g, *THIRDS)
    g.output("q", q)
    return [q, k, v]


def q_k_and_v_together_are_an_output(g: Graph) -> list[Value]:
    parts, qkv = q_k_v(g, *THIRDS)
    g.output("qkv", qkv)
    return parts


def q_k_and_v_together_are_read_elsewhere(g: Graph) -> list[Value]:
    parts, qkv = q_k_v(g, *THIRDS)
    g.output("act", g.add(Activation("relu"), qkv, path="act"))
    return parts


def q_is_a_whole_linear_that_is_v_too(g: Graph) -> list[Value]:
    x = tokens(g, WINDOWS)
    q, k = (g.add(Linear(8, 8), x, path=name) for name in "qk")
    return [q, k, q]


def q_is_a_whole_linear_that_is_an_output(g: Graph) -> list[Value]:
    x = tokens(g, WINDOWS)
    q, k, v = (g.add(Linear(8, 8), x, path=name) for name in "qkv")
    g.output("q", q)
    return [q, k, v]


def q_is_reordered_from_a_linear_that_is_read_elsewhere(g: Graph) -> list[Value]:
    x = tokens(g)
    q, k, v = (g.add(Linear(8, 8), x, path=name) for name in "qkv")
    g.output("act", g.add(Activation("relu"), q, path="act"))
    return [g.add(Reorder(WINDOWS), part, path=f"{part.path}r") for part in (q, k, v)]


def q_is_reordered_and_read_elsewhere(g: Graph) -> list[Value]:
    x = tokens(g)
    q, k, v = (g.add(Reorder(WINDOWS), g.add(Linear(8, 8), x, path=name), path=f"{name}r") for name in "qkv")
    g.output("act", g.add(Activation("relu"), q, path="act"))
    return [q, k, v]


def q_is_activated(g: Graph) -> list[Value]:
    (q, k, v), _ = q_k_v(g, *THIRDS)
    return [g.add(Activation("relu"), q, path="act"), k, v]


def q_is_normed(g: Graph) -> list[Value]:
    (q, k, v), _ = q_k_v(g, *THIRDS)
    return [g.add(LayerNorm(8), q, path="norm"), k, v]


def q_is_the_input(g: Graph) -> list[Value]:
    x = tokens(g, WINDOWS)
    return [x, *(g.add(Linear(8, 8), x, path=name) for name in "kv")]


QUERIES = [
    q_is_k_too,
    q_is_made_twice,
    q_shares_channels_with_k,
    q_holds_the_channels_of_k,
    q_is_read_elsewhere,
    q_is_an_output,
    q_k_and_v_together_are_an_output,
    q_k_and_v_together_are_read_elsewhere,
    q_is_a_whole_linear_that_is_v_too,
    q_is_a_whole_linear_that_is_an_output,
    q_is_reordered_from_a_linear_that_is_read_elsewhere,
    q_is_reordered_and_read_elsewhere,
    q_is_activated,
    q_is_normed,
    q_is_the_input,
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.__name__)
def test_the_scale_stays_where_it_would_scale_something_else(query):
    g = Graph()
    g.output("y", g.add(Attention(2, 0.3), *query(g), path="attend"))
    assert ops(after(fold_scales, graph=g).graph, Attention) == ["Attention(heads=2, scale=0.3)"]


def test_two_attentions_scale_their_own_rows_of_one_linear():
    g = Graph()
    qkv = g.add(Linear(8, 32), tokens(g, WINDOWS), path="qkv")
    q, p, k, v = (g.add(Slice(i * 8, i * 8 + 8), qkv, path=name) for i, name in enumerate("qpkv"))
    a, b = g.add(Attention(2, 0.3), q, k, v, path="a"), g.add(Attention(4, 0.7), p, k, v, path="b")
    g.output("y", g.add(Add(), a, b, path="sum"))
    found = after(fold_scales, graph=g).graph
    assert ops(found, Attention) == ["Attention(heads=2, scale=1.0)", "Attention(heads=4, scale=1.0)"]


def test_two_attentions_of_one_q_keep_their_scales():
    g = Graph()
    (q, k, v), _ = q_k_v(g, *THIRDS)
    a, b = g.add(Attention(2, 0.3), q, k, v, path="a"), g.add(Attention(4, 0.7), q, k, v, path="b")
    g.output("y", g.add(Add(), a, b, path="sum"))
    assert len(ops(after(fold_scales, graph=g).graph, Attention)) == 2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", [None, WINDOWS, PADDED], ids=str)
def test_layer_scale_goes_into_the_linear_before_it(bias: bool, order: Order | None):
    g = Graph()
    y = g.add(Linear(8, 8, bias=bias), tokens(g), path="fc")
    y = g.add(Reorder(order), y, path="there") if order else y
    g.output("y", g.add(LayerScale(8), y, path="gamma"))
    assert ops(after(fold_scales, graph=g).graph, LayerScale) == []


def test_layer_scale_goes_into_the_rows_of_a_convolution():
    g = Graph()
    y = g.add(Conv2d(8, 16, 3, padding=1, groups=2), tokens(g, PLANES), path="conv")
    g.output("y", g.add(LayerScale(16), g.add(Reorder(RASTER), y, path="tokens"), path="gamma"))
    assert ops(after(fold_scales, graph=g).graph, LayerScale) == []


@pytest.mark.parametrize("how", ["read by a sum", "an output", "read in another order"])
def test_layer_scale_stays_after_a_linear_with_another_reader(how: str):
    g = Graph()
    fc = g.add(Linear(8, 8), tokens(g), path="fc")
    there = g.add(Reorder(WINDOWS), fc, path="there") if how == "read in another order" else fc
    y = g.add(LayerScale(8), there, path="gamma")
    if how == "an output":
        g.output("fc", fc)
    else:
        y = g.add(Add(), y, there, path="sum")
    g.output("y", y)
    assert len(ops(after(fold_scales, graph=g).graph, LayerScale)) == 1


def test_layer_scale_stays_after_an_activation():
    g = Graph()
    y = g.add(Activation("gelu"), g.add(Linear(8, 8), tokens(g), path="fc"), path="act")
    g.output("y", g.add(LayerScale(8), y, path="gamma"))
    assert len(ops(after(fold_scales, graph=g).graph, LayerScale)) == 1


# fold_constants


def attention_with_bias(g: Graph, name: str, x: Value, window: Windows = WINDOWS) -> Value:
    bias = g.add(RelativePositionBias(window.window, 2), path=f"{name}.table")
    if window.shifted:
        bias = g.add(Add(), bias, g.add(ShiftMask(window), path=f"{name}.mask"), path=f"{name}.bias")
    return g.add(Attention(2, 0.5), x, x, x, bias, path=name)


def test_a_position_bias_becomes_a_constant():
    g = Graph()
    g.output("y", attention_with_bias(g, "a", tokens(g, WINDOWS)))
    assert text(after(fold_constants, graph=g).graph) == (
        "a.table.constant = Constant(shape=(1, 2, 4, 4))\n"
        "a = Attention(heads=2, scale=0.5) <- x, x, x, a.table.constant\ny: a"
    )


def test_the_sum_of_a_position_bias_and_a_mask_is_one_constant():
    g = Graph()
    g.output("y", attention_with_bias(g, "a", tokens(g, SHIFTED), SHIFTED))
    network = after(fold_constants, graph=g)
    assert text(network.graph) == (
        "a.bias.constant = Constant(shape=(4, 2, 4, 4))\n"
        "a = Attention(heads=2, scale=0.5) <- x, x, x, a.bias.constant\ny: a"
    )
    assert set(network.weights) == {"a.bias.constant"}


def two_attentions(g: Graph) -> None:
    x = tokens(g, SHIFTED)
    g.output("y", attention_with_bias(g, "b", attention_with_bias(g, "a", x, SHIFTED), SHIFTED))


def test_unequal_constants_stay_two():
    g = Graph()
    two_attentions(g)
    assert len(ops(after(fold_constants, graph=g).graph, Constant)) == 2


def test_equal_constants_become_one():
    g = Graph()
    two_attentions(g)
    weights = random_weights(g)
    weights["b.table"] = weights["a.table"].copy()
    network = after(fold_constants, graph=g, weights=weights)
    assert len(ops(network.graph, Constant)) == 1 and set(network.weights) == {"a.bias.constant"}


def test_constants_of_other_shapes_with_the_same_numbers_stay_two():
    """[1, 4, 2, 2] and [1, 1, 4, 4], all zeros."""
    g = Graph()
    narrow, square = (
        g.add(RelativePositionBias((1, 2), 4), path="narrow"),
        g.add(RelativePositionBias((2, 2), 1), path="square"),
    )
    x = tokens(g, Windows(4, 4, (1, 2)))
    y = g.add(Reorder(WINDOWS), g.add(Attention(4, 0.5), x, x, x, narrow, path="a"), path="there")
    g.output("y", g.add(Attention(1, 0.5), y, y, y, square, path="b"))
    weights = random_weights(g)
    weights |= {name: np.zeros_like(weights[name]) for name in ("narrow", "square")}
    assert len(ops(after(fold_constants, graph=g, weights=weights).graph, Constant)) == 2


def test_a_sum_beyond_the_limit_stays_a_sum_of_smaller_constants(monkeypatch: pytest.MonkeyPatch):
    g = Graph()
    g.output("y", attention_with_bias(g, "a", tokens(g, SHIFTED), SHIFTED))
    monkeypatch.setattr(constants_module, "LIMIT", 4 * 2 * 4 * 4 - 1)
    assert text(after(fold_constants, graph=g).graph).splitlines()[:3] == [
        "a.table.constant = Constant(shape=(1, 2, 4, 4))",
        "a.mask.constant = Constant(shape=(4, 1, 4, 4))",
        "a.bias = Add() <- a.table.constant, a.mask.constant",
    ]
    monkeypatch.setattr(constants_module, "LIMIT", 4 * 2 * 4 * 4)
    assert len(ops(after(fold_constants, graph=g).graph, Constant)) == 1


def test_what_depends_on_the_image_stays():
    g = Graph()
    g.output("y", g.add(Add(), tokens(g), tokens(g, name="z"), path="sum"))
    assert text(after(fold_constants, graph=g).graph) == "sum = Add() <- x, z\ny: sum"


def test_folding_constants_twice_is_folding_once():
    g = Graph()
    two_attentions(g)
    once = after(fold_constants, graph=g)
    twice = after(fold_constants, graph=once.graph, weights=once.weights)
    assert text(twice.graph) == text(once.graph)


# common_subexpressions


def test_the_same_op_on_the_same_value_is_done_once():
    g = Graph()
    x = tokens(g)
    a, b = (g.add(Activation("gelu"), g.add(Reorder(WINDOWS), x, path=f"r{i}"), path=f"a{i}") for i in (0, 1))
    g.output("y", g.add(Add(), a, b, path="sum"))
    assert text(after(merge, graph=g).graph) == (
        "r0 = Reorder(to=windows(4x4 by 2x2)) <- x\na0 = Activation(name=gelu) <- r0\nsum = Add() <- a0, a0\ny: sum"
    )


def test_ops_with_unequal_tensors_stay_two():
    g = Graph()
    x = tokens(g)
    a, b = (g.add(Linear(8, 8), x, path=name) for name in "ab")
    g.output("y", g.add(Add(), a, b, path="sum"))
    assert len(ops(after(merge, graph=g).graph, Linear)) == 2
    weights = random_weights(g)
    equal = weights | {"b.weight": weights["a.weight"].copy(), "b.bias": weights["a.bias"].copy()}
    assert len(ops(after(merge, graph=g, weights=equal).graph, Linear)) == 1
    nearly = equal | {"b.bias": weights["b.bias"]}
    assert len(ops(after(merge, graph=g, weights=nearly).graph, Linear)) == 2


def test_inputs_of_one_type_stay_two():
    g = Graph()
    g.output("y", g.add(Add(), tokens(g), g.add(Activation("relu"), tokens(g, name="z"), path="act"), path="sum"))
    assert len(after(merge, graph=g).graph.inputs) == 2


def test_operands_in_another_order_are_another_op():
    g = Graph()
    x, z, w = (tokens(g, WINDOWS, name) for name in "xzw")
    a, b = g.add(Attention(2, 0.5), x, z, w, path="a"), g.add(Attention(2, 0.5), z, x, w, path="b")
    g.output("y", g.add(Add(), a, b, path="sum"))
    assert len(ops(after(merge, graph=g).graph, Attention)) == 2


def test_equal_outputs_keep_their_names():
    g = Graph()
    x = tokens(g)
    for name in ("y", "z"):
        g.output(name, g.add(Activation("relu"), x, path=f"act_{name}"))
    assert text(after(merge, graph=g).graph) == "act_y = Activation(name=relu) <- x\ny: act_y\nz: act_y"


# the runner


def test_the_runner_catches_a_pass_that_loses_the_numbers_of_a_tensor():
    g = Graph()
    g.output("y", g.add(Linear(8, 8), tokens(g), path="fc"))
    forgetful = Pass("forgetful", lambda network: Network(network.graph, {"fc.weight": network.weights["fc.weight"]}))
    with pytest.raises(PassBroken, match=r"forgetful left tensors that do not fit the graph: fc\.bias"):
        run_passes(Network(g, random_weights(g)), [forgetful])


def test_the_runner_catches_a_pass_that_leaves_a_tensor_of_another_shape():
    g = Graph()
    g.output("y", g.add(Linear(8, 8), tokens(g), path="fc"))
    short = Pass("short", lambda network: Network(network.graph, network.weights | {"fc.bias": np.zeros(7)}))
    with pytest.raises(PassBroken, match=r"fc\.bias"):
        run_passes(Network(g, random_weights(g)), [short])


# all of them


def test_a_whole_block_with_batch_norms_needs_no_norm_and_moves_nothing_twice():
    g = Graph()
    x = g.add(
        Reorder(RASTER),
        g.add(Conv2d(3, 8, 2, stride=2), g.input("x", TensorType((3, 8, 8), order=Planes(8, 8))), path="stem"),
        path="tokens",
    )
    x = g.add(BatchNorm(8), x, path="stem_norm")
    for i in range(2):
        y = g.add(Reorder(WINDOWS), g.add(BatchNorm(8), x, path=f"{i}.norm"), path=f"{i}.in")
        qkv = g.add(Linear(8, 24), y, path=f"{i}.qkv")
        parts = [g.add(Slice(j * 8, j * 8 + 8), qkv, path=f"{i}.{name}") for j, name in enumerate("qkv")]
        bias = g.add(RelativePositionBias((2, 2), 2), path=f"{i}.table")
        y = g.add(Linear(8, 8), g.add(Attention(2, 0.5), *parts, bias, path=f"{i}.attend"), path=f"{i}.proj")
        y = g.add(DropPath(0.1), g.add(Reorder(RASTER), y, path=f"{i}.out"), path=f"{i}.drop")
        x = g.add(Add(), x, y, path=f"{i}.sum")
    y = g.add(MeanPool(), g.add(BatchNorm(8), x, path="norm"), path="pool")
    g.output("y", g.add(Linear(8, 4), y, path="fc"))
    found = after(*DEPLOYMENT, graph=g).graph
    assert norms(found) == [] and len(ops(found, Reorder)) == 1
    assert ops(found, RelativePositionBias, DropPath) == []
    assert ops(found, Attention) == ["Attention(heads=2, scale=1.0)"] * 2


def test_after_all_passes_no_token_moves_for_a_norm_that_needs_no_order_any_more():
    g = Graph()
    y = g.add(TokenBatchNorm(16), g.add(Reorder(RASTER), tokens(g, SHIFTED), path="back"), path="norm")
    g.output("y", g.add(Reorder(SHIFTED), y, path="again"))
    assert text(after(*DEPLOYMENT, graph=g).graph) == "norm = TokenAffine(num_tokens=16) <- x\ny: norm"


def test_after_all_passes_what_has_become_equal_is_done_once():
    """Two layer norms of one value differ in their affine parts alone, which go into the linears behind them."""
    g = Graph()
    x = tokens(g)
    a, b = (g.add(Linear(8, 8), g.add(LayerNorm(8), x, path=f"norm_{i}"), path=f"fc_{i}") for i in "ab")
    g.output("y", g.add(Add(), a, b, path="sum"))
    assert norms(after(*DEPLOYMENT, graph=g).graph) == ["LayerNorm(dim=8, affine=False)"]


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_any_network_computes_the_same_after_all_passes(start: int):
    compared = 0
    for seed in range(start, start + 50):
        graph = Drawing(seed).graph()
        before = Network(graph, random_weights(graph, seed))
        network, _ = run_passes(before, DEPLOYMENT)
        if not any(map(depends_on_the_input, torch_outputs(before, inputs(graph)))):
            continue  # attention upon attention: all images have become alike
        try:
            assert_same_function(network, before, onnx=seed % 5 == 0)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}:\n{graph.text()}\n\nbecame\n\n{network.graph.text()}") from error
        compared += 1
    assert compared >= 40


def test_the_random_networks_cover_what_passes_look_for():
    """Else the test above would say little."""
    kinds: dict[str, int] = {}
    folded = {"norms": 0, "scales": 0, "affines": 0}
    for seed in range(200):
        graph = Drawing(seed).graph()
        for node in graph.live():
            kinds[type(node.op).__name__] = kinds.get(type(node.op).__name__, 0) + 1
        found = run_passes(Network(graph, random_weights(graph)), DEPLOYMENT)[0].graph
        folded["norms"] += sum(isinstance(n.op, LayerNorm) and not n.op.affine for n in found.live())
        folded["scales"] += sum(isinstance(n.op, Attention) and n.op.scale == 1 for n in found.live())
        folded["affines"] += sum(isinstance(n.op, Affine | TokenAffine) for n in found.live())
    for kind in (
        LayerNorm,
        BatchNorm,
        TokenBatchNorm,
        LayerScale,
        Conv2d,
        Attention,
        ShiftMask,
        MergeGroups,
        TakeToken,
    ):
        assert kinds[kind.__name__] >= 20, kind
    assert min(folded.values()) >= 20, folded
