"""Number formats in the graph: where they change, what stays fp32, and what fp16's range is too small for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from onnx_runs import random_weights
from random_networks import Drawing
from same_function import difference, inputs, onnx_outputs, torch_outputs
from shipped import at_test_size

import archdsl
from archdsl.backends.parity import parity_of
from archdsl.backends.torch import ranges as ranges
from archdsl.backends.torch.ranges import HEADROOM, LARGEST_FP16, beyond_fp16, largest_values
from archdsl.compiler import deploy
from archdsl.errors import BackendError
from archdsl.ir.graph import Graph, Input, Value
from archdsl.ir.order import Raster, Windows
from archdsl.ir.types import DType, TensorType
from archdsl.language import loads
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask
from archdsl.ops.linear import Linear
from archdsl.ops.norm import LayerNorm
from archdsl.ops.pointwise import Activation, Add
from archdsl.ops.tokens import MeanPool, Reorder, Slice
from archdsl.ops.values import Cast, Constant
from archdsl.passes import fold_constants
from archdsl.passes.network import Network
from archdsl.passes.pipelines import DEPLOYMENT
from archdsl.passes.runner import run_passes
from archdsl.passes.set_precision import in_dtype, set_precision

WINDOWS = Windows(4, 4, (2, 2))
SHIFTED = Windows(4, 4, (2, 2), (1, 1))
KINDS = ["convnext_swin_t", "micro_swin_free_br", "swin_b_br", "swin_t", "vit_ti_16"]
FORMATS: list[DType] = ["f16", "bf16"]


def tokens(g: Graph, order=WINDOWS) -> Value:
    return g.input("x", TensorType((16, 8), order=Raster(4, 4)).in_order(order))


def casts(graph: Graph) -> list[str]:
    return [f"{node.inputs[0].path} as {node.op.to}" for node in graph.live() if isinstance(node.op, Cast)]


def formats(graph: Graph) -> dict[str, str]:
    return {node.path: node.type.dtype for node in graph.live()}


def with_precision(graph: Graph, dtype: DType, keep: frozenset[str] = frozenset()) -> Network:
    """With random weights, after all passes."""
    network = run_passes(Network(graph, random_weights(graph)), DEPLOYMENT)[0]
    return run_passes(network, [in_dtype(dtype, keep)])[0]


# structure


def test_a_norm_is_an_island_with_a_cast_at_each_shore():
    g = Graph()
    y = g.add(Activation("relu"), g.add(Linear(8, 8), tokens(g), path="fc"), path="act")
    g.output("y", g.add(Linear(8, 4), g.add(LayerNorm(8, affine=False), y, path="norm"), path="fc2"))
    assert set_precision(g, "f16").text().splitlines() == [
        "x: f32[B, 16, 8] windows(4x4 by 2x2)",
        "x.f16: f16[B, 16, 8] windows(4x4 by 2x2) = Cast(to=f16) <- x",
        "fc: f16[B, 16, 8] windows(4x4 by 2x2) = Linear(d_in=8, d_out=8) <- x.f16",
        "act: f16[B, 16, 8] windows(4x4 by 2x2) = Activation(name=relu) <- fc",
        "act.f32: f32[B, 16, 8] windows(4x4 by 2x2) = Cast(to=f32) <- act",
        "norm: f32[B, 16, 8] windows(4x4 by 2x2) = LayerNorm(dim=8, affine=False) <- act.f32",
        "norm.f16: f16[B, 16, 8] windows(4x4 by 2x2) = Cast(to=f16) <- norm",
        "fc2: f16[B, 16, 4] windows(4x4 by 2x2) = Linear(d_in=8, d_out=4) <- norm.f16",
        "fc2.f32: f32[B, 16, 4] windows(4x4 by 2x2) = Cast(to=f32) <- fc2",
        "return y = fc2.f32",
    ]


def test_two_islands_in_a_row_need_no_cast_between_them():
    g = Graph()
    y = g.add(MeanPool(), g.add(LayerNorm(8), tokens(g), path="norm"), path="pool")
    g.output("y", y)
    assert casts(set_precision(g, "f16")) == []


def test_a_value_is_cast_once_for_all_who_read_it():
    g = Graph()
    norm = g.add(LayerNorm(8), tokens(g), path="norm")
    parts = [g.add(Linear(8, 8), norm, path=name) for name in "abc"]
    y = g.add(Add(), g.add(Add(), *parts[:2], path="d"), parts[2], path="e")
    y = g.add(Add(), g.add(LayerNorm(8), y, path="f"), g.add(LayerNorm(8, eps=1), y, path="h"), path="i")
    g.output("y", y)
    found = Counter(casts(set_precision(g, "f16")))
    assert max(found.values()) == 1 and {"norm as f16", "e as f32"} <= set(found)


def test_formats_that_were_set_before_are_set_anew():
    network = deploy("micro_swin")
    once = set_precision(network.graph, "f16", {"head.fc"})
    assert set_precision(once, "f16", {"head.fc"}).text() == once.text()
    assert set_precision(once, "bf16").text() == set_precision(network.graph, "bf16").text()
    assert casts(set_precision(once, "f32")) == []


def test_an_output_that_is_an_island_or_an_input_is_not_cast():
    g = Graph()
    x = tokens(g)
    g.output("x", x)
    g.output("norm", g.add(LayerNorm(8), x, path="norm"))
    g.output("fc", g.add(Linear(8, 8), x, path="fc"))
    g.output("fc_too", g.outputs["fc"])
    after = set_precision(g, "bf16")
    assert casts(after) == ["x as bf16", "fc as f32"]
    assert after.outputs["fc"] is after.outputs["fc_too"]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", KINDS)
def test_the_formats_of_a_whole_network_are_in_order(name: str, dtype: DType):
    """Ends and islands are f32, all else is not; every cast is needed."""
    network = deploy(at_test_size(name))
    graph = set_precision(network.graph, dtype)
    readers = graph.users()
    for node in graph.live():
        if isinstance(node.op, Input | LayerNorm | MeanPool | Constant):
            assert node.type.dtype == "f32", node
        elif isinstance(node.op, Cast):
            (x,) = node.inputs
            assert x.type.batched and x.type.dtype != node.type.dtype
            assert not isinstance(x.op, Cast), "a cast of a cast"
            assert readers[node] or node in graph.outputs.values()
        else:
            assert node.type.dtype == dtype, node
        if not isinstance(node.op, Cast | Attention):
            assert {x.type.dtype for x in node.inputs} <= {node.type.dtype}, node
        if isinstance(node.op, Attention):
            assert [x.type.dtype for x in node.inputs[:3]] == [dtype] * 3
            assert all(x.type.dtype == "f32" and isinstance(x.op, Constant) for x in node.inputs[3:])
    assert all(node.type.dtype == "f32" for node in [*graph.inputs, *graph.outputs.values()])
    assert max(Counter(casts(graph)).values()) == 1
    assert {type(node.op) for node in graph.live()} - {Cast} == {type(node.op) for node in network.graph.live()}


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_is_kept_is_f32_and_nothing_else_becomes_so(dtype: DType):
    network = deploy("micro_swin")
    everything = set_precision(network.graph, dtype)
    kept = {"stages.0.blocks.1.mlp.fc1", "stages.1.blocks.0.attn.attend", "head.fc"}
    graph = set_precision(network.graph, dtype, kept)
    was, now = formats(everything), formats(graph)
    assert {path for path in was.keys() & now.keys() if was[path] != now[path]} == kept
    assert all(now[path] == "f32" for path in kept)


def test_fp32_and_the_fp32_network_of_int8_have_no_casts():
    assert casts(deploy("micro_swin").graph) == [] and casts(deploy("micro_swin", precision="int8").graph) == []


# numbers


def attention(g: Graph, name: str, x: Value, order: Windows, table: Value | None = None) -> Value:
    bias = g.add(RelativePositionBias(order.window, 2), path=f"{name}.table") if table is None else table
    if order.shifted:
        bias = g.add(Add(), bias, g.add(ShiftMask(order), path=f"{name}.mask"), path=f"{name}.bias")
    qkv = g.add(Linear(8, 24), x, path=f"{name}.qkv")
    return g.add(
        Attention(2, 0.5), *(g.add(Slice(i, i + 8), qkv, path=f"{name}.{i}") for i in (0, 8, 16)), bias, path=name
    )


def assert_near(network: Network, graph: Graph, tolerance: float = 1e-2) -> None:
    xs = inputs(graph)
    (want,) = torch_outputs(Network(graph, random_weights(graph)), xs)
    for (got,) in (torch_outputs(network, xs), onnx_outputs(network, xs)):
        assert got.dtype == np.float32
        assert difference(got, want) <= tolerance


def test_one_constant_is_added_in_an_attention_of_fp16_and_in_one_that_stays_fp32():
    g = Graph()
    x = tokens(g, SHIFTED)
    table = g.add(RelativePositionBias((2, 2), 2), path="table")
    a = attention(g, "a", x, SHIFTED, table)
    g.output("y", g.add(Linear(8, 5), attention(g, "b", a, SHIFTED, table), path="fc"))
    for keep in ({"a"}, {"b"}):
        network = with_precision(g, "f16", frozenset(keep))
        assert len([node for node in network.graph.live() if isinstance(node.op, Constant)]) == 1
        assert_near(network, g)


def test_a_bias_too_large_to_be_one_constant_is_added_in_fp16_too(monkeypatch: pytest.MonkeyPatch):
    from archdsl.backends.onnx.emitters import pointwise

    monkeypatch.setattr(fold_constants, "LIMIT", 100)
    monkeypatch.setattr(pointwise, "LIMIT", 100)
    g = Graph()
    y = attention(g, "a", tokens(g, SHIFTED), SHIFTED)
    g.output("y", g.add(Linear(8, 5), y, path="fc"))
    network = with_precision(g, "f16")
    assert len([node for node in network.graph.live() if isinstance(node.op, Constant)]) == 2
    assert_near(network, g)


@pytest.mark.parametrize("dtype", FORMATS)
def test_any_network_runs_in_any_format(dtype: DType):
    """On PyTorch, and in fp16 on ONNX Runtime; the worst of these loses 5e-3 of the largest output, in bf16 2e-2."""
    for seed in range(40):
        graph = Drawing(seed).graph()
        network, before = with_precision(graph, dtype), Network(graph, random_weights(graph))
        xs = inputs(graph)
        want = torch_outputs(before, xs)
        for got in [torch_outputs(network, xs), *([onnx_outputs(network, xs)] if dtype == "f16" else [])]:
            for ours, theirs in zip(got, want, strict=True):
                assert difference(ours, theirs) <= (0.02 if dtype == "f16" else 0.05), f"seed {seed}"


def test_softmax_is_exact_where_fp16_logits_would_be_equal():
    """Two logits that differ by 0.25 near 1000 are one number in fp16 after -1000 is not taken off: 1000 + bias."""
    g = Graph()
    y = attention(g, "a", tokens(g), WINDOWS)
    g.output("y", g.add(Linear(8, 5), y, path="fc"))
    weights = random_weights(g)
    weights["a.table"] = weights["a.table"] + np.float32(4096)
    network = run_passes(Network(g, weights), [*DEPLOYMENT, in_dtype("f16")])[0]
    xs = inputs(g)
    (want,) = torch_outputs(Network(g, weights), xs)
    (got,) = onnx_outputs(network, xs)
    assert difference(got, want) <= 1e-2


# range


LARGE = """
name: large
input: {size: 16}
stem: {type: patch, patch: 4, dim: 16}
stages: [{block: swin, depth: 2, heads: 2, window: 2, shift: true, mlp_ratio: 2}]
head: {type: classifier, classes: 5}
"""
FC1, ACT, FC2 = (f"stages.0.blocks.0.mlp.{name}" for name in ("fc1", "act", "fc2"))


def large() -> tuple[object, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A network with values near 1e6 within one MLP, which its second linear scales down again."""
    from archdsl.language.architecture.lower import lower

    spec = loads(LARGE, set={"defaults.act": "relu"})
    graph = lower(spec)
    weights = random_weights(graph)
    weights[f"{FC1}.weight"] *= np.float32(1e6)
    weights[f"{FC2}.weight"] *= np.float32(1e-6)
    before = Network(graph, weights)
    xs = inputs(graph)
    return spec, weights, xs[0], torch_outputs(before, xs)[0]


def test_values_beyond_fp16_are_found_with_those_who_read_them():
    spec, weights, _, _ = large()
    network = deploy(spec, weights)
    assert largest_values(network)[FC1] > 10 * LARGEST_FP16
    assert largest_values(network)[FC2] < LARGEST_FP16 / HEADROOM
    assert beyond_fp16(network) == {FC1, ACT, FC2}


@pytest.mark.parametrize("runtime", [torch_outputs, onnx_outputs], ids=["torch", "onnxruntime"])
def test_what_is_beyond_fp16_stays_fp32_by_itself_and_would_be_infinite_otherwise(runtime):
    spec, weights, x, want = large()
    network = deploy(spec, weights, precision="fp16")
    assert [formats(network.graph)[path] for path in (FC1, ACT, FC2)] == ["f32"] * 3
    assert formats(network.graph)["stages.0.blocks.1.mlp.fc1"] == "f16"
    parity = parity_of(runtime(network, [x])[0], want, "fp16")
    assert parity.passed, str(parity)

    broken = deploy(spec, weights, precision="fp16", keep=frozenset())
    got = runtime(broken, [x])[0]
    assert not np.isfinite(got).all()
    assert not parity_of(got, want, "fp16").passed


def test_attention_whose_logits_fp16_cannot_hold_stays_fp32():
    """Its q, k and result are small enough; ONNX Runtime's CPU kernels widen by themselves, a GPU's would overflow."""
    g = Graph()
    y = attention(g, "a", tokens(g), WINDOWS)
    g.output("y", g.add(Linear(8, 5), y, path="fc"))
    weights = random_weights(g)
    network, x = run_passes(Network(g, weights), DEPLOYMENT)[0], torch.from_numpy(inputs(g)[0])
    (attends,) = (node.path for node in network.graph.live() if isinstance(node.op, Attention))
    assert beyond_fp16(network, x) == frozenset()
    qkv = next(name for name in network.weights if name.endswith("qkv.weight"))
    large = {**network.weights, qkv: network.weights[qkv] * np.float32(500)}
    assert beyond_fp16(Network(network.graph, large), x) == {attends}


def test_weights_beyond_fp16_stay_fp32_whatever_they_make():
    """A linear with weights of 1e5 on inputs near 1e-5: its result is small, its weights would be infinite."""
    g = Graph()
    y = g.add(Linear(8, 8), tokens(g), path="small")
    g.output("y", g.add(Linear(8, 5), y, path="large"))
    weights = random_weights(g)
    for key in ("weight", "bias"):
        weights[f"small.{key}"] *= np.float32(1e-5)
    weights["large.weight"] = -1e5 * np.abs(weights["large.weight"]) - np.float32(1e5)
    x = torch.from_numpy(inputs(g)[0])
    assert beyond_fp16(Network(g, weights), x) == {"large"}
    weights["large.weight"] *= np.float32(1e-5)
    assert beyond_fp16(Network(g, weights), x) == frozenset()


def test_headroom_is_left_for_the_images_that_were_not_run():
    g = Graph()
    g.output("y", g.add(Reorder(SHIFTED), tokens(g), path="there"))
    network = Network(g, {})
    limit = LARGEST_FP16 / HEADROOM
    x = torch.zeros(1, 16, 8)
    x[0, 3, 3] = -0.9 * limit
    assert beyond_fp16(network, x) == frozenset()
    x[0, 3, 3] = -1.1 * limit
    assert "there" in beyond_fp16(network, x)


def test_a_value_that_is_not_a_number_is_beyond_any_range():
    g = Graph()
    g.output("y", g.add(Reorder(SHIFTED), tokens(g), path="there"))
    x = torch.full((1, 16, 8), float("nan"))
    assert "there" in beyond_fp16(Network(g, {}), x)


def test_no_shipped_network_needs_fp32_for_its_range_with_initial_weights():
    for name in ("micro_swin", "micro_swin_free_br"):
        assert beyond_fp16(deploy(name)) == frozenset()
    assert ranges.HEADROOM >= 2


# the report


def outputs(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_parity_is_measured_by_the_worst_image():
    want = outputs([1, 2, 4], [4, 0, 0])
    found = parity_of(outputs([1, 2, 4], [3, 0.5, 0]), want, "fp16")
    assert found.max_rel_error == pytest.approx(0.25)
    assert found.cosine == pytest.approx(3 / np.hypot(3, 0.5))
    assert found.top1_agreement == 1.0 and not found.passed
    assert parity_of(want[:, ::-1], want, "fp16").top1_agreement == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_never_passes(value: float):
    want = outputs([1, 2, 4])
    for precision in ("fp32", "fp16", "bf16", "int8"):
        assert not parity_of(outputs([1, value, 4]), want, precision).passed
        assert parity_of(want, want, precision).passed


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"outputs \[1, 3\] are expected, got \[1, 2\]"):
        parity_of(outputs([1, 2]), outputs([1, 2, 3]), "fp32")


def test_a_node_to_keep_that_is_none_is_named():
    with pytest.raises(BackendError, match=r"no node 'stages\.9\.fc'"):
        archdsl.deploy("micro_swin", precision="fp16", keep={"stages.9.fc"})


def test_a_runtime_without_a_dialect_is_named(tmp_path):
    with pytest.raises(BackendError, match="no ONNX dialect was measured for 'onnxruntme'"):
        archdsl.export_onnx("micro_swin", tmp_path / "m.onnx", runtime="onnxruntme")
    assert not list(tmp_path.iterdir())


def test_a_module_in_int8_is_refused_rather_than_given_in_fp32():
    with pytest.raises(BackendError, match="int8 is made as ONNX only"):
        archdsl.build("micro_swin", deploy=True, precision="int8")
