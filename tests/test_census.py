"""What is left in the graph and in the ONNX model of every shipped network once it is deployed.

The weights are the initial ones with nonzero biases everywhere: with a shift of zero more could be folded than in a
network that has been trained.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from shipped import NAMES, at_test_size, distinct

import archdsl
from archdsl.backends.initial import initial_weights
from archdsl.backends.onnx import model as onnx_model
from archdsl.compiler import deploy
from archdsl.ir.graph import Graph, Input, Node
from archdsl.language.architecture.lower import lower
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask
from archdsl.ops.cosine import ContinuousPositionBias, HeadNorm
from archdsl.ops.joining import AddVector, Concat, Mul, MulVector, Sub
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, Shift, TokenAffine, TokenBatchNorm
from archdsl.ops.pointwise import Activation, Add, Average, LayerScale
from archdsl.ops.pooling import AdaptivePool, Pool2d, Resize
from archdsl.ops.tokens import AddPosition, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken
from archdsl.ops.values import Constant
from archdsl.passes.propagate_layouts import data_moving_reorders

BR = [name for name in NAMES if "_br" in name]
SHIFTED_BR = ["swin_b_br"]
"""Batch norm with shifted windows: tokens must move between a block with and a block without shift."""

KINDS_OF_OPS = {Input, Linear, Conv2d, LayerNorm, Activation, Add, Reorder, MergeGroups, Slice, Attention, Constant}
KINDS_OF_OPS |= {
    AdaptivePool,
    AddVector,
    HeadNorm,
    Average,
    Concat,
    Mul,
    MulVector,
    Sub,
    Pool2d,
    Resize,
    MeanPool,
    PrependToken,
    AddPosition,
    TakeToken,
}

ONNX_OPS = {"Add", "Concat", "Conv", "Gather", "Gelu", "LayerNormalization", "MatMul", "Mul", "ReduceMean", "Relu"}
ONNX_OPS |= {"AveragePool", "HardSigmoid", "MaxPool", "Mean", "Sigmoid", "Sub", "Reshape", "Slice", "Softmax", "Split"}
ONNX_OPS |= {"Transpose", "ReduceL2", "Max", "Div", "Resize"}
NORMALISATIONS = {"LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}

AFFINE_STAYS = ("stem.norm", ".shortcut.norm", ".norm1", ".norm2", ".downsample.norm", "features.3.norm")
"""Norms that a residual stream or a pooling may read as well: their scale and shift cannot go into one linear."""


@dataclass(frozen=True)
class Census:
    """What is kept of a deployed network, which is large: its graph and facts about its ONNX model.

    constants: one digest for each constant, of its shape and numbers
    forms: how many nodes of each type the model has
    gathers: the names of its Gather nodes
    """

    graph: Graph
    constants: tuple[bytes, ...]
    forms: Counter[str]
    gathers: tuple[str, ...]


@cache
def deployed(name: str, *, full: bool = False) -> Census:
    spec = archdsl.load(name) if full else at_test_size(name)
    weights = initial_weights(lower(spec))
    shifted = {key: value + np.float32(0.1) for key, value in weights.items() if key.endswith((".bias", "_mean"))}
    network = deploy(spec, weights | shifted)
    graph, model = network.graph, onnx_model.emit(network.graph, network.weights, batch=1)
    constants = [network.weights[node.path] for node in graph.live() if isinstance(node.op, Constant)]
    return Census(
        graph,
        tuple(sha256(repr(each.shape).encode() + each.tobytes()).digest() for each in constants),
        Counter(node.op_type for node in model.graph),
        tuple(node.name or "" for node in model.graph if node.op_type == "Gather"),
    )


def count(graph: Graph, *kinds: type) -> int:
    return sum(isinstance(node.op, kinds) for node in graph.live())


def reorders_inside_stages(graph: Graph) -> list[Node]:
    """The reorders that move tokens between two blocks, or within a block, of one stage.

    A reorder is inside a stage when its value depends on an op of one of the stage's blocks and an op of one of its
    blocks depends on it. So the partition before the first block (of what the stem or the downsampling made) and the
    merge after the last one (for the downsampling or the head) are not; all that a stage does to itself is.
    """
    above = reached(graph.live(), lambda node: node.inputs)
    users = graph.users()
    below = reached(list(reversed(graph.live())), lambda node: users[node])
    return [node for node in data_moving_reorders(graph) if above[node] & below[node]]


def reached(nodes: list[Node], neighbours) -> dict[Node, frozenset[str]]:
    """For each node, the stages whose blocks are met in one direction, its own apart."""
    found: dict[Node, frozenset[str]] = {}
    for node in nodes:
        stages: frozenset[str] = frozenset()
        for other in neighbours(node):
            stages |= found[other] | own_stage(other)
        found[node] = stages
    return found


def own_stage(node: Node) -> frozenset[str]:
    """The stage of an op of a block (`stages.2.blocks.0.…`); none for reorders, which stand anywhere."""
    first, _, rest = node.path.partition(".blocks.")
    return frozenset([first]) if rest and not isinstance(node.op, Reorder | Constant) else frozenset()


# batch norm


@pytest.mark.parametrize("name", BR)
def test_a_network_with_batch_norm_has_no_norm_left_in_the_graph(name: str):
    graph = deployed(name, full=True).graph
    left = (BatchNorm, TokenBatchNorm, LayerNorm, Affine, TokenAffine, LayerScale)
    assert count(lower(archdsl.load(name)), *left) > 0
    assert count(graph, *left) == 0


@pytest.mark.parametrize("name", BR)
def test_a_network_with_batch_norm_has_no_norm_left_in_the_model(name: str):
    """Nor what is left of one: the train form has a Mul for each norm, the deploy form none at all."""
    forms = deployed(name, full=True).forms
    assert not forms.keys() & NORMALISATIONS and forms["Mul"] == 0
    train = Counter(node.op_type for node in onnx_model.emit(archdsl.compile(name)).graph)
    assert train["Mul"] >= count(archdsl.compile(name), BatchNorm)


@pytest.mark.parametrize("name", [name for name in BR if name not in SHIFTED_BR])
def test_a_swin_free_with_batch_norm_moves_no_token_inside_a_stage(name: str):
    graph = deployed(name, full=True).graph
    assert reorders_inside_stages(graph) == []
    assert len(data_moving_reorders(graph)) <= len(archdsl.load(name).stages)


@pytest.mark.parametrize("name", SHIFTED_BR)
def test_a_shifted_network_with_batch_norm_moves_tokens_once_for_each_change_of_shift(name: str):
    spec, graph = archdsl.load(name), deployed(name, full=True).graph
    changes = 0
    for index in range(len(spec.stages)):
        blocks = [node for node in graph.live() if isinstance(node.op, Attention) and f"stages.{index}." in node.path]
        orders = [node.inputs[0].type.order for node in blocks]
        changes += sum(a != b for a, b in pairwise(orders))
    assert changes == 1 + 1 + 17
    assert len(reorders_inside_stages(graph)) == changes


def test_the_census_sees_a_reorder_inside_a_stage():
    """In the graph as it is lowered every block partitions and merges."""
    graph = lower(archdsl.load("swin_free_t_br"))
    inside = [node.path for node in reorders_inside_stages(graph)]
    assert "stages.0.blocks.0.attn.from_windows" in inside and "stages.0.blocks.1.attn.to_windows" in inside
    assert "stages.1.downsample.gather" not in inside
    assert len(inside) == len(data_moving_reorders(graph)) - 3 - 1  # the patch mergings, and the first partition


# layer norm


@pytest.mark.parametrize("name", distinct())
def test_no_layer_norm_is_affine_but_those_that_a_residual_stream_reads(name: str):
    graph = deployed(name).graph
    affine = {node.path for node in graph.live() if isinstance(node.op, LayerNorm) and node.op.affine}
    assert all(path.endswith(AFFINE_STAYS) for path in affine)
    for node in graph.live():
        if node.path in affine:
            assert any(isinstance(reader.op, Add | AdaptivePool) for reader in readers_beyond_reorders(graph, node))
    plain = sum(isinstance(node.op, LayerNorm) and not node.op.affine for node in graph.live())
    before = [node for node in lower(at_test_size(name)).live() if isinstance(node.op, LayerNorm)]
    of_one_value = Counter(beyond_reorders(node.inputs[0]) for node in before)  # plain norms of one value are one norm
    assert plain + len(affine) == len(of_one_value)


def test_which_networks_keep_the_norm_of_their_stem():
    kept = {
        name
        for name in distinct()
        if any(n.path == "stem.norm" and isinstance(n.op, LayerNorm) for n in deployed(name).graph.live())
    }
    assert kept == {name for name in distinct() if at_test_size(name).stem.norm == "layer"}


def beyond_reorders(node: Node) -> Node:
    while isinstance(node.op, Reorder):
        (node,) = node.inputs
    return node


def readers_beyond_reorders(graph: Graph, node: Node) -> list[Node]:
    users, found, open_ = graph.users(), [], [node]
    while open_:
        for user in users[open_.pop()]:
            (open_ if isinstance(user.op, Reorder) else found).append(user)
    return found


# everything


@pytest.mark.parametrize("name", distinct())
def test_the_ops_of_a_deployed_graph(name: str):
    """Nothing of training, no table, no mask, no scale that q's linear could have, nothing computed twice."""
    graph = deployed(name).graph
    assert {type(node.op) for node in graph.live()} <= KINDS_OF_OPS
    assert count(graph, RelativePositionBias, ContinuousPositionBias, ShiftMask, LayerScale, Shift) == 0
    assert not any(node.op.train_only for node in graph.live())
    assert all(node.op.scale == 1 for node in graph.live() if isinstance(node.op, Attention))
    twice = Counter((node.op, node.inputs) for node in graph.live() if not node.op.tensors() and node.inputs)
    assert max(twice.values()) == 1


@pytest.mark.parametrize("name", distinct())
def test_each_attention_has_one_constant_at_most_and_equal_ones_are_shared(name: str):
    network = deployed(name)
    graph = network.graph
    for node in graph.live():
        if isinstance(node.op, Attention):
            assert len(node.inputs) <= 4 and all(isinstance(x.op, Constant) for x in node.inputs[3:])
    assert len(set(network.constants)) == len(network.constants) == count(graph, Constant)


def test_equal_position_biases_are_one_constant_for_each_order_of_windows():
    spec = archdsl.load("swin_t")
    weights = initial_weights(lower(spec))
    tables = {name: np.zeros_like(value) for name, value in weights.items() if name.endswith("bias_table")}
    graph = deploy(spec, weights | tables).graph
    added = {
        (node.inputs[3].type.shape, node.inputs[0].type.order if node.inputs[3].type.shape[0] > 1 else None)
        for node in graph.live()
        if isinstance(node.op, Attention)
    }
    assert count(graph, Constant) == len(added) == 7  # three stages with and without a mask, the last one without


@pytest.mark.parametrize("name", distinct())
def test_the_ops_of_a_deployed_model(name: str):
    """Every node is one that the graph asked for: gathers only move or take tokens, one Add for each bias and sum."""
    network = deployed(name)
    graph, forms = network.graph, network.forms
    assert forms.keys() <= ONNX_OPS

    moving = [node.path for node in graph.live() if isinstance(node.op, Reorder | TakeToken)]
    for gather in network.gathers:
        assert any(gather == path or gather.startswith(f"{path}/") for path in moving), gather
    assert forms["Gather"] <= len(data_moving_reorders(graph)) + count(graph, TakeToken)

    biased = sum(isinstance(node.op, Linear) and node.op.bias for node in graph.live())
    attentions = [node for node in graph.live() if isinstance(node.op, Attention)]
    added = sum(len(node.inputs) == 4 for node in attentions)
    assert forms["Add"] == biased + added + count(graph, Add, AddVector, AddPosition, PrependToken)
    heads = [node.op for node in graph.live() if isinstance(node.op, HeadNorm)]
    assert forms["Mul"] == count(graph, Mul, MulVector, PrependToken) + sum(op.scaled for op in heads)
    assert forms["ReduceL2"] == forms["Max"] == forms["Div"] == len(heads)
    assert forms["Mean"] == count(graph, Average)
    assert forms["Softmax"] == len(attentions)
    pooled = sum(isinstance(node.op, AdaptivePool) and by_products(node) for node in graph.live())
    assert forms["MatMul"] == count(graph, Linear) + 2 * len(attentions) + 2 * pooled
    assert forms["LayerNormalization"] == count(graph, LayerNorm)
    assert sum(forms[name] for name in ("Gelu", "Relu", "Sigmoid", "HardSigmoid")) == count(graph, Activation)


def by_products(node: Node) -> bool:
    """Whether the neighbourhoods of a pooling overlap, or differ in size."""
    (x,) = node.inputs
    return any(side % part for side, part in zip(x.type.shape[1:], node.type.shape[1:], strict=True))


def test_the_canonical_attention_is_two_products_around_one_sum_and_a_softmax():
    """MatMul - Add - Softmax - MatMul, q and its scale from the linear, the bias one initializer."""
    network = deploy("swin_t")
    model = onnx_model.emit(network.graph, network.weights, batch=1)
    for softmax in (node for node in model.graph if node.op_type == "Softmax"):
        add = softmax.inputs[0].producer()
        assert add.op_type == "Add" and add.inputs[0].producer().op_type == "MatMul"
        assert add.inputs[1].name in model.graph.initializers
        (after,) = softmax.outputs[0].uses()
        assert after.node.op_type == "MatMul"
