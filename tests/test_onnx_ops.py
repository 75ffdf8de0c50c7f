"""Each op's ONNX form against a small reference, run by ONNX Runtime; and what the null backend says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib import import_module

import numpy as np
import onnx
import pytest
import torch
from onnx_runs import checked, forms, random_weights, run
from torch.nn import functional as F

from archdsl.backends import null
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.onnx.dialects import Dialect
from archdsl.backends.torch import fx as torch_fx
from archdsl.errors import BackendError
from archdsl.ir.graph import Graph, Input
from archdsl.ir.op import Op
from archdsl.ir.order import Groups2x2, Planes, Raster, Windows, window_order
from archdsl.ir.types import TensorType
from archdsl.ops import OPS
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask, windows_in
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.norm import BatchNorm, LayerNorm, TokenBatchNorm
from archdsl.ops.pointwise import Activation, Add, Dropout, DropPath, LayerScale
from archdsl.ops.tokens import AddPosition, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken
from archdsl.ops.values import Constant

MAP = TensorType((12, 8), order=Raster(3, 4))
PLANES = TensorType((8, 6, 5), order=Planes(6, 5))
VECTOR = TensorType((8,))
SEQUENCE = TensorType((7, 8))


def one(op: Op, *types: TensorType) -> Graph:
    """A graph of one op, called `op`, whose inputs are x0, x1, …"""
    g = Graph()
    g.output("y", g.add(op, *(g.input(f"x{i}", type) for i, type in enumerate(types)), path="op"))
    return g


def images(g: Graph, batch: int = 2) -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [draw.standard_normal((batch, *node.type.shape), dtype=np.float32) for node in g.inputs]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("backend", ["torch", "onnx", "source"])
def test_every_op_has_an_emitter_in_the_file_of_its_family(backend, op):
    if backend == "source" and op in (Input, Constant):
        return  # an input is an argument there, and a file shows a graph before deploying makes constants
    family = "values" if op is Input else op.__module__.rpartition(".")[2]
    emitters = import_module(f"archdsl.backends.{backend}.emitters.{family}").EMITTERS
    assert op in emitters, f"{op.__name__} has no emitter in backends/{backend}/emitters/{family}.py"
    assert import_module(f"archdsl.backends.{backend}.emitters").EMITTERS[op] is emitters[op]


def batch_norm(x, w, shape):
    mean, var, weight, bias = (w[f"op.{k}"].reshape(shape) for k in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def t(x):
    return torch.from_numpy(x)


REFERENCES = {
    "linear": (Linear(8, 5), [MAP], lambda w, x: x @ w["op.weight"].T + w["op.bias"]),
    "linear, no bias": (Linear(8, 5, bias=False), [SEQUENCE], lambda w, x: x @ w["op.weight"].T),
    "linear on a vector": (Linear(8, 5), [VECTOR], lambda w, x: x @ w["op.weight"].T + w["op.bias"]),
    "conv": (Conv2d(8, 6, 3, 2, 1), [PLANES], lambda w, x: F.conv2d(t(x), t(w["op.weight"]), t(w["op.bias"]), 2, 1)),
    "depthwise conv": (
        Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),
        [PLANES],
        lambda w, x: F.conv2d(t(x), t(w["op.weight"]), None, 1, 1, groups=8),
    ),
    "layer norm": (
        LayerNorm(8, 1e-3),
        [MAP],
        lambda w, x: F.layer_norm(t(x), (8,), t(w["op.weight"]), t(w["op.bias"]), 1e-3),
    ),
    "batch norm": (BatchNorm(8), [MAP], lambda w, x: batch_norm(x, w, (1, 1, 8))),
    "batch norm on a vector": (BatchNorm(8), [VECTOR], lambda w, x: batch_norm(x, w, (1, 8))),
    "token batch norm": (TokenBatchNorm(12), [MAP], lambda w, x: batch_norm(x, w, (1, 12, 1))),
    "gelu": (Activation("gelu"), [MAP], lambda w, x: F.gelu(t(x))),
    "gelu_tanh": (Activation("gelu_tanh"), [PLANES], lambda w, x: F.gelu(t(x), approximate="tanh")),
    "relu": (Activation("relu"), [MAP], lambda w, x: np.maximum(x, 0)),
    "silu": (Activation("silu"), [MAP], lambda w, x: F.silu(t(x))),
    "hardswish": (Activation("hardswish"), [MAP], lambda w, x: F.hardswish(t(x))),
    "add": (Add(), [MAP, MAP], lambda w, x, y: x + y),
    "layer scale": (LayerScale(8), [MAP], lambda w, x: x * w["op"]),
    "drop path": (DropPath(0.3), [MAP], lambda w, x: x),
    "dropout": (Dropout(0.3), [MAP], lambda w, x: x),
    "merge groups": (
        MergeGroups(),
        [TensorType((24, 8), order=Groups2x2(4, 6, Raster(2, 3)))],
        lambda w, x: x.reshape(2, 6, 32),
    ),
    "slice": (Slice(2, 7), [MAP], lambda w, x: x[..., 2:7]),
    "prepend token": (
        PrependToken(8),
        [MAP],
        lambda w, x: np.concatenate([np.broadcast_to(w["op"], (2, 1, 8)), x], axis=1),
    ),
    "add position": (AddPosition(7, 8), [SEQUENCE], lambda w, x: x + w["op"]),
    "take token": (TakeToken(3), [SEQUENCE], lambda w, x: x[:, 3]),
    "mean pool of tokens": (MeanPool(), [MAP], lambda w, x: x.mean(1)),
    "mean pool of planes": (MeanPool(), [PLANES], lambda w, x: x.mean((2, 3))),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_an_op_computes_its_formula(case):
    op, types, reference = REFERENCES[case]
    g = one(op, *types)
    weights, xs = random_weights(g), images(g)
    want = np.asarray(reference(weights, *xs))
    (got,) = run(checked(g, weights), *xs)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-6 * max(1.0, np.abs(want).max())


# ---- attention


def attention(q, k, v, heads: int, windows: int, scale: float, *bias) -> np.ndarray:
    """The formula, window by window and head by head."""
    out = np.empty((*q.shape[:2], v.shape[2]), np.float64)
    for b, w, h in itertools.product(range(len(q)), range(windows), range(heads)):
        split = (x[b].astype(np.float64).reshape(windows, -1, heads, x.shape[2] // heads) for x in (q, k, v))
        qs, ks, vs = (x[w, :, h] for x in split)
        logits = scale * qs @ ks.T + sum(term[min(w, len(term) - 1), min(h, term.shape[1] - 1)] for term in bias)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = p / p.sum(-1, keepdims=True) @ vs
        out[b].reshape(windows, -1, heads, v.shape[2] // heads)[w, :, h] = mixed
    return out


@pytest.mark.parametrize(
    ("q_type", "windows"),
    [(MAP, 1), (SEQUENCE, 1), (TensorType((48, 8), order=Windows(8, 6, (4, 3))), 4)],
    ids=["raster", "sequence", "windows"],
)
def test_attention_stays_within_windows(q_type, windows):
    g = one(Attention(2, 0.37), q_type, q_type, q_type)
    q, k, v = images(g)
    (got,) = run(checked(g, {}), q, k, v)
    assert np.abs(got - attention(q, k, v, 2, windows, 0.37)).max() < 2e-6


def test_attention_takes_keys_and_values_of_other_lengths_and_widths():
    g = one(Attention(2, 1.0), SEQUENCE, TensorType((5, 8)), TensorType((5, 12)))
    q, k, v = images(g)
    model = checked(g, {})
    assert np.abs(run(model, q, k, v)[0] - attention(q, k, v, 2, 1, 1.0)).max() < 2e-6
    assert "Mul" not in forms(model)  # a scale of 1 is no product


WINDOWS = Windows(8, 6, (4, 3), (2, 1))
TOKENS = TensorType((48, 8), order=WINDOWS)
ATTENTIONS = {  # q, k, v, bias
    "one window": (MAP, MAP, MAP),
    "one window, biased": (MAP, MAP, MAP, (1, 2, 12, 12)),
    "other lengths and widths": (SEQUENCE, TensorType((5, 8)), TensorType((5, 12)), (1, 2, 7, 5)),
    "windows": (TOKENS, TOKENS, TOKENS),
    "windows, one bias": (TOKENS, TOKENS, TOKENS, (1, 2, 12, 12)),
    "windows, their own bias": (TOKENS, TOKENS, TOKENS, (4, 2, 12, 12)),
    "windows, wider values": (TOKENS, TOKENS, TensorType((48, 12), order=WINDOWS), (4, 2, 12, 12)),
}


def attending(case: str, dtype: str = "f32") -> Graph:
    types, bias = ATTENTIONS[case][:3], ATTENTIONS[case][3:]
    g = Graph()
    xs = [g.input(name, replace(type, dtype=dtype)) for name, type in zip("qkv", types, strict=True)]
    xs += [g.add(Constant(shape), path="bias") for shape in bias]
    g.output("y", g.add(Attention(2, 0.37), *xs, path="attend"))
    return g


def want_of(g: Graph, weights, xs) -> np.ndarray:
    bias = [weights["bias"].astype(np.float64)] if "bias" in weights else []
    return attention(*xs, 2, windows_in(g.inputs[0].type), 0.37, *bias)


@pytest.mark.parametrize("folded", [True, False], ids=["constant bias", "bias as a value"])
@pytest.mark.parametrize("batch", [1, 3, None])
@pytest.mark.parametrize("form", ["products", "op"])
@pytest.mark.parametrize("tokens", ["batched", "rows"])
@pytest.mark.parametrize("case", ATTENTIONS)
def test_every_form_of_attention_computes_the_formula(case, tokens, form, batch, folded, monkeypatch):
    if not folded:
        monkeypatch.setitem(onnx_model.EMITTERS, Constant, lambda e, op: e.op("Identity", e.parameter()))
    g = attending(case)
    weights, xs = random_weights(g), images(g, batch or 2)
    how = {} if batch is None else {"batch": batch}
    model = checked(g, weights, dialect=Dialect(form, tokens=tokens), **how)
    (got,) = run(model, *xs)
    assert np.abs(got - want_of(g, weights, xs)).max() < 2e-6
    own_bias = weights and weights["bias"].shape[0] > 1
    assert ("Attention" in forms(model)) == (form == "op" and not (own_bias and batch != 1))
    assert "Cast" not in forms(model)


@pytest.mark.parametrize("batch", [1, 3, None])
@pytest.mark.parametrize("case", ATTENTIONS)
def test_the_products_of_attention_have_four_axes(case, batch):
    g = attending(case)
    proto = onnx.load_from_string(onnx_model.serialize(onnx_model.emit(g, random_weights(g), batch=batch)))
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    read = {name for node in proto.graph.node if node.op_type in ("MatMul", "Softmax") for name in node.input}
    sides = [len(value.type.tensor_type.shape.dim) for value in proto.graph.value_info if value.name in read]
    assert sides == [4] * 5


@pytest.mark.parametrize("form", ["products", "op"])
@pytest.mark.parametrize("case", ATTENTIONS)
def test_half_precision_attention_adds_the_bias_and_takes_the_softmax_in_f32(case, form):
    g = attending(case, "f16")
    weights, xs = random_weights(g), [x.astype(np.float16) for x in images(g, 1)]
    model = onnx_model.emit(g, weights, batch=1, dialect=Dialect(form))
    (got,) = run(model, *xs)
    assert got.dtype == np.float16
    assert np.abs(got - want_of(g, weights, xs)).max() < 4e-3
    found = forms(model)
    if form == "products":
        start, end = (i for i, op in enumerate(found) if op == "Cast")
        assert found[start + 1 : end] == [*["Add"] * ("bias" in weights), "Softmax"]
    else:
        (one,) = (node for node in model.graph if node.op_type == "Attention")
        assert one.attributes["softmax_precision"].value == onnx.TensorProto.FLOAT


def biased(order: Windows | Raster, *terms: Op) -> tuple[Graph, int]:
    """Attention on tokens in `order` with the sum of `terms` as bias."""
    g = Graph()
    xs = [g.input(name, TensorType((order.num_slots, 8), order=order)) for name in "qkv"]
    nodes = [g.add(term, path=f"term{i}") for i, term in enumerate(terms)]
    bias = g.add(Add(), *nodes, path="bias") if len(nodes) == 2 else nodes[0]
    g.output("y", g.add(Attention(2, 0.5), *xs, bias, path="attend"))
    return g, order.num_windows


def test_the_position_bias_becomes_one_constant():
    order = Windows(8, 6, (4, 3))
    g, windows = biased(order, RelativePositionBias((4, 3), 2))
    weights, xs = random_weights(g), images(g)
    model = checked(g, weights)
    places = list(itertools.product(range(4), range(3)))
    table = weights["term0"].reshape(7, 5, 2)
    pairs = [[table[ya - yb + 3, xa - xb + 2] for yb, xb in places] for ya, xa in places]
    bias = np.array(pairs).transpose(2, 0, 1)
    assert np.abs(run(model, *xs)[0] - attention(*xs, 2, windows, 0.5, bias[None])).max() < 2e-6
    assert "Gather" not in forms(model)
    assert "term0" not in model.graph.initializers  # only the full bias is left


def test_bias_and_mask_are_summed_while_emitting():
    order = Windows(8, 6, (4, 3), (2, 1))
    g, windows = biased(order, RelativePositionBias((4, 3), 2), ShiftMask(order))
    weights, xs = random_weights(g), images(g)
    model = checked(g, weights)
    regions = np.array(order.regions()).reshape(windows, 12)
    mask = np.where(regions[:, :, None] == regions[:, None, :], 0.0, -100.0)[:, None]
    table, rows = weights["term0"], np.array(RelativePositionBias((4, 3), 2).rows())
    bias = table[rows].T.reshape(1, 2, 12, 12)
    assert np.abs(run(model, *xs)[0] - attention(*xs, 2, windows, 0.5, bias, mask)).max() < 2e-6
    assert forms(model).count("Add") == 1
    assert model.graph.initializers["attend/bias"].shape == (1, 4 * 2, 12, 12)  # the windows join the heads


def test_a_sum_too_large_to_fold_stays_a_sum(monkeypatch):
    monkeypatch.setattr("archdsl.backends.onnx.emitters.pointwise.LIMIT", 100)
    order = Windows(8, 6, (4, 3), (2, 1))
    g, _ = biased(order, RelativePositionBias((4, 3), 2), ShiftMask(order))
    weights, xs = random_weights(g), images(g)
    split = checked(g, weights)
    monkeypatch.undo()
    assert forms(split).count("Add") == 2
    assert np.abs(run(split, *xs)[0] - run(checked(g, weights), *xs)[0]).max() < 1e-6


# ---- slices


def sliced(*cuts: tuple[int, int]) -> Graph:
    g = Graph()
    x = g.input("x", MAP)
    for i, (start, stop) in enumerate(cuts):
        g.output(f"y{i}", g.add(Slice(start, stop), x, path=f"part{i}"))
    return g


@pytest.mark.parametrize(
    ("cuts", "want"),
    [
        ([(0, 3), (3, 4), (4, 8)], ["Split"]),
        ([(4, 8), (0, 4)], ["Split"]),
        ([(0, 4), (4, 8), (0, 4)], ["Split", "Identity"]),
        ([(0, 4), (5, 8)], ["Slice", "Slice"]),
        ([(0, 5), (4, 8)], ["Slice", "Slice"]),
        ([(0, 8)], ["Slice"]),
    ],
)
def test_slices_that_cut_a_value_without_gaps_are_one_split(cuts, want):
    g = sliced(*cuts)
    (x,) = images(g)
    model = checked(g, {})
    for got, (start, stop) in zip(run(model, x), cuts, strict=True):
        assert (got == x[..., start:stop]).all()
    assert forms(model) == want


# ---- reorders: `slots()` is the definition


def orders_of(height: int, width: int):
    half = (-(-height // 2), -(-width // 2))
    yield Raster(height, width)
    yield Planes(height, width)
    for window in (2, 3, 4):
        for shift in (False, True):
            yield window_order(height, width, window, shift=shift)
    yield Windows(height, width, (2, 3), (1, 0))
    yield Groups2x2(height, width, Raster(*half))
    yield Groups2x2(height, width, window_order(*half, 2, shift=False))


def laid_out(raster: np.ndarray, order) -> np.ndarray:
    """Raster tokens [B, H * W, C] in another order, padding zero: the definition by `slots()`."""
    batch, _, channels = raster.shape
    if isinstance(order, Planes):
        return raster.transpose(0, 2, 1).reshape(batch, channels, order.height, order.width)
    padded = np.concatenate([raster, np.zeros((batch, 1, channels), raster.dtype)], axis=1)
    return padded[:, list(order.slots())]  # slot -1 is the zero at the end


@pytest.mark.parametrize("size", [(4, 4), (6, 4), (5, 7), (1, 3)], ids=str)
def test_reorders_between_all_pairs_of_orders_place_tokens_as_slots_say(size):
    raster = np.random.default_rng(0).standard_normal((2, size[0] * size[1], 3), dtype=np.float32)
    orders = list(dict.fromkeys(orders_of(*size)))
    for source in orders:
        g = Graph()
        x = g.input("x", TensorType((size[0] * size[1], 3), order=Raster(*size)).in_order(source))
        for i, target in enumerate(orders):
            g.output(f"y{i}", g.add(Reorder(target), x, path=f"to{i}"))
        garbage = laid_out(raster, source)
        if source.padded:  # what stands in padding must not matter
            garbage[:, np.array(source.slots()) < 0] = 7
        for got, target in zip(run(checked(g, {}), garbage), orders, strict=True):
            want = garbage if target == source else laid_out(raster, target)
            assert (got == want).all(), f"{source} -> {target}"


def test_a_reorder_that_moves_nothing_is_nothing():
    g = one(Reorder(Windows(4, 3, (2, 3))), TensorType((12, 8), order=Raster(4, 3)))  # full-width windows
    assert forms(checked(g, {})) == ["Identity"]  # only because an input is an output


def test_equal_reorders_share_one_index():
    g = Graph()
    x = g.input("x", MAP)
    for i in range(2):
        x = g.add(Reorder(Windows(3, 4, (3, 2), (0, 1))), x, path=f"{i}.out")
        x = g.add(Reorder(Raster(3, 4)), x, path=f"{i}.back")
    g.output("y", x)
    model = checked(g, {})
    assert forms(model) == ["Gather"] * 4
    assert list(model.graph.initializers) == ["0.out/index", "0.back/index"]


# ---- null


def test_null_says_what_would_be_done():
    g = one(Linear(8, 5), MAP)
    assert null.emit(g).splitlines() == [
        "x0: Input(type=f32[B, 12, 8] raster(3x4)) -> f32[B, 12, 8] raster(3x4)",
        "op: Linear(d_in=8, d_out=5) -> f32[B, 12, 5] raster(3x4)",
        "y: op",
    ]


class Unknown(Op):
    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]


@pytest.mark.parametrize("backend", [torch_fx, onnx_model], ids=["torch", "onnx"])
def test_an_op_without_an_emitter_is_a_located_error(backend):
    with pytest.raises(BackendError, match=r"^\w+:1:1: the \w+ backend cannot emit the op Unknown"):
        backend.emit(one(Unknown(), MAP))
