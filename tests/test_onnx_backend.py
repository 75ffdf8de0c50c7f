"""The ONNX backend on whole networks: valid, any batch, equal to torch, the same bytes each time, safe on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_runs import checked, forms, random_weights, run, session

from archdsl.backends.initial import initial_weights
from archdsl.backends.onnx import file as onnx_file
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.onnx.dialects import DIALECTS, Dialect, dialect_for
from archdsl.backends.onnx.model import emit
from archdsl.backends.onnx.opsets import newest_opset
from archdsl.backends.torch import fx as torch_fx
from archdsl.compiler import compile, deploy_graph
from archdsl.errors import ArchError, BackendError, WeightsError
from archdsl.ir.graph import Graph, Scope
from archdsl.ir.order import Planes, Raster
from archdsl.ir.types import TensorType
from archdsl.ops.linear import Linear
from archdsl.ops.norm import LayerNorm
from archdsl.ops.pointwise import Activation, Add
from archdsl.parts.families.convnext import ConvNextBlock
from archdsl.parts.families.swin import SwinBlock
from archdsl.parts.families.vit import VitBlock
from archdsl.parts.flow import Flow
from archdsl.parts.layers.downsamples import ConvDownsample, PatchMerging
from archdsl.parts.layers.heads import Classifier
from archdsl.parts.layers.stems import PatchStem
from archdsl.passes.propagate_layouts import propagate_layouts


def net(name: str, size: tuple[int, int], *parts: tuple[str, object, *tuple[int, ...]]) -> Graph:
    """A network of parts at their paths; a downsample is followed by its width."""
    g = Graph(name)
    flow = Flow(g.input("image", TensorType((3, *size), order=Planes(*size))))
    for path, part, *width in parts:
        flow = part.lower(Scope(g, path), flow, *width)
    g.output("logits", flow.x)
    return g


HEAD = ("head", Classifier(classes=10))
WITH_ATTENTION = ("swin", "swin, padded windows and odd merging", "swin-free, batch norm by token", "vit")


def swin_pair(path: str, **fields: object) -> list[tuple[str, SwinBlock]]:
    return [(f"{path}.blocks.{i}", SwinBlock(**({"shift": i == 1} | fields))) for i in range(2)]


NETS: dict[str, Callable[[], Graph]] = {
    "swin": lambda: net(
        "swin",
        (32, 32),
        ("stem", PatchStem(patch=2, dim=12, norm="layer")),
        *swin_pair("stages.0", heads=3, window=4),
        ("stages.1.downsample", PatchMerging(), 24),
        *swin_pair("stages.1", heads=4, window=4),
        HEAD,
    ),
    "swin, padded windows and odd merging": lambda: net(
        "padded",
        (36, 44),
        ("stem", PatchStem(patch=2, dim=12)),
        *swin_pair("stages.0", heads=3, window=7),
        ("stages.1.downsample", PatchMerging(), 24),
        *swin_pair("stages.1", heads=4, window=5),
        ("stages.2.downsample", PatchMerging(), 32),
        *swin_pair("stages.2", heads=4, window=7),
        HEAD,
    ),
    "swin-free, batch norm": lambda: net(
        "free",
        (32, 32),
        ("stem", PatchStem(patch=2, dim=12, norm="batch")),
        *swin_pair("stages.0", heads=3, window=4, shift=False, norm="batch", act="relu"),
        ("stages.1.downsample", PatchMerging(norm="none"), 24),
        *swin_pair("stages.1", heads=3, window=8, shift=False, norm="batch", act="relu"),
        ("head", Classifier(classes=10, norm="batch")),
    ),
    "swin-free, batch norm by token": lambda: net(
        "token",
        (32, 32),
        ("stem", PatchStem(patch=2, dim=12, norm="batch", norm_axis="token")),
        *swin_pair(
            "stages.0",
            heads=3,
            window=4,
            shift=False,
            norm="batch",
            norm_axis="token",
            qkv_bias=False,
            position_bias="none",
        ),
        ("head", Classifier(classes=10, norm="batch", norm_axis="token")),
    ),
    "vit": lambda: net(
        "vit",
        (32, 32),
        ("stem", PatchStem(patch=8, dim=24, cls=True, position="learned")),
        ("blocks.0", VitBlock(heads=3)),
        ("blocks.1", VitBlock(heads=4, act="gelu_tanh", drop_path=0.1)),
        ("head", Classifier(classes=10, pool="cls")),
    ),
    "convnext": lambda: net(
        "convnext",
        (32, 32),
        ("stem", PatchStem(patch=4, dim=12, norm="layer")),
        ("stages.0.blocks.0", ConvNextBlock(kernel=3)),
        ("stages.1.downsample", ConvDownsample(), 20),
        ("stages.1.blocks.0", ConvNextBlock(kernel=3, act="silu", layer_scale=None)),
        ("head", Classifier(classes=10, norm_after_pool=True)),
    ),
    "mixed": lambda: net(
        "mixed",
        (32, 32),
        ("stem", PatchStem(patch=2, dim=12, norm="layer")),
        ("stages.0.blocks.0", ConvNextBlock(kernel=5)),
        ("stages.1.downsample", PatchMerging(), 24),
        *swin_pair("stages.1", heads=3, window=4, act="hardswish"),
        ("stages.1.blocks.2", ConvNextBlock(kernel=3)),
        HEAD,
    ),
}


def images(g: Graph, batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *g.inputs[0].type.shape), dtype=np.float32)


@pytest.fixture(scope="module")
def tiny() -> Graph:
    return NETS["swin"]()


def with_own_statistics(g: Graph, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights with running statistics from the network's own activations.

    A deep network whose batch norms do not normalise is chaotic: torch in float32 and in float64 then differ by 10 %.
    """
    module = torch_fx.emit(g, weights).train()
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0
    with torch.no_grad():
        module(torch.from_numpy(images(g, 4)))
    return {name: x.numpy() for name, x in module.state_dict().items() if name in weights}


# ---- whole networks


@pytest.mark.promise(14)
@pytest.mark.parametrize("settled", [False, True], ids=["as drawn", "settled"])
@pytest.mark.parametrize("name", NETS)
def test_one_model_serves_every_batch_and_equals_torch(name, settled):
    g = NETS[name]()
    weights = random_weights(g)
    if settled:
        g = propagate_layouts(g)
    runs = session(checked(g, weights))
    module = torch_fx.emit(g, weights).eval()
    for batch in (1, 2, 3):
        x = images(g, batch)
        (got,) = run(runs, x)
        with torch.no_grad():
            want = module(torch.from_numpy(x)).numpy()
        assert got.shape == (batch, 10)
        assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()


@pytest.mark.promise(14)
@pytest.mark.parametrize("spec", ["swin_t", "swin_free_t_br", "vit_ti_16", "convnext_swin_t"])
def test_a_shipped_network_equals_torch(spec):
    g = compile(spec)
    weights = with_own_statistics(g, random_weights(g))
    runs = session(onnx_model.emit(g, weights))
    module = torch_fx.emit(g, weights).eval()
    for batch in (1, 3):
        x = images(g, batch)
        with torch.no_grad():
            want = module(torch.from_numpy(x)).numpy()
        assert np.abs(run(runs, x)[0] - want).max() <= 1e-4 * np.abs(want).max()


CHOICES = [
    Dialect(attention="op"),
    Dialect(linears="cut"),
    Dialect(tokens="rows"),
    Dialect(attention="op", linears="cut", tokens="rows", hidden="wider"),
]


@pytest.mark.parametrize("batch", [3, None])
@pytest.mark.parametrize("chosen", CHOICES, ids=lambda x: f"{x.attention} {x.linears} {x.tokens}")
@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_every_form_of_a_network_equals_torch(name, chosen, batch):
    g = propagate_layouts(NETS[name]())
    weights = random_weights(g)
    model = checked(g, weights, dialect=chosen) if batch is None else checked(g, weights, dialect=chosen, batch=batch)
    assert ("Attention" in forms(model)) == (chosen.attention == "op")
    assert ("Split" in forms(model)) == (chosen.linears == "whole")
    module = torch_fx.emit(g, weights).eval()
    x = images(g, batch or 2)
    with torch.no_grad():
        want = module(torch.from_numpy(x)).numpy()
    assert np.abs(run(model, x)[0] - want).max() <= 2e-5 * np.abs(want).max()


def test_tokens_as_rows_are_matrices_between_the_ends():
    g = propagate_layouts(NETS["swin"]())
    model = checked(g, dialect=Dialect(tokens="rows"), batch=2)
    named = {node.name: node for node in model.graph}
    for name in ("stages.0.blocks.0.norm1", "stages.0.blocks.0.attn.qkv", "stages.0.blocks.0.add"):
        assert list(named[name].outputs[0].shape)[:1] == [2 * 16 * 16]
        assert len(named[name].outputs[0].shape) == 2


@pytest.mark.parametrize("runtime", DIALECTS)
def test_the_forms_of_each_runtime_equal_torch(runtime):
    g = compile("swin_t")
    weights = random_weights(g)
    model = onnx_model.emit(g, weights, batch=2, dialect=dialect_for(runtime))
    x = images(g, 2)
    with torch.no_grad():
        want = torch_fx.emit(g, weights).eval()(torch.from_numpy(x)).numpy()
    assert np.abs(run(model, x)[0] - want).max() <= 1e-4 * np.abs(want).max()


def test_images_of_a_batch_do_not_meet(tiny):
    runs = session(onnx_model.emit(tiny))
    x = images(tiny, 3)
    alone = np.concatenate([run(runs, x[i : i + 1])[0] for i in range(3)])
    assert np.abs(run(runs, x)[0] - alone).max() <= 1e-6


def test_the_default_weights_are_the_initial_ones_of_the_seed(tiny):
    given = onnx_model.serialize(onnx_model.emit(tiny, initial_weights(tiny, 5)))
    assert onnx_model.serialize(onnx_model.emit(tiny, seed=5)) == given
    assert onnx_model.serialize(onnx_model.emit(tiny, seed=6)) != given


def test_torch_tensors_are_weights_too(tiny):
    weights = initial_weights(tiny)
    as_torch = {name: torch.from_numpy(x) for name, x in weights.items()}
    assert onnx_model.serialize(onnx_model.emit(tiny, as_torch)) == onnx_model.serialize(onnx_model.emit(tiny, weights))


# ---- what the model looks like


def test_nodes_are_named_by_path_and_values_carry_shapes(tiny):
    model = checked(tiny)
    named = {node.name: node for node in model.graph}
    assert named["stages.0.blocks.0.attn.attend"].op_type == "Reshape"
    assert named["stages.0.blocks.0.attn.attend/Softmax"].op_type == "Softmax"
    assert named["stages.1.blocks.1.norm2"].inputs[1].name == "stages.1.blocks.1.norm2.weight"
    assert [str(d) for d in named["head.pool"].outputs[0].shape] == ["batch", "24"]
    assert [x.name for x in model.graph.inputs] == ["image"]
    assert [y.name for y in model.graph.outputs] == ["logits"]


def test_a_swin_block_is_the_canonical_pattern():
    g = propagate_layouts(NETS["swin"]())
    found = forms(checked(g))
    assert found.count("Softmax") == 4
    assert found.count("Split") == 4
    assert found.count("LayerNormalization") == 1 + 8 + 1 + 1
    assert found.count("Gelu") == 4
    assert not {"Erf", "Tanh", "Pow", "Sqrt", "Slice", "Concat", "Cast"} & set(found)


def test_equal_constants_are_held_once():
    g = NETS["swin"]()
    model = checked(g)
    scales = [x for x in model.graph.initializers if x.endswith("attend/scale")]
    assert len(scales) == 2  # one head width a stage


def test_the_model_says_what_it_is(tiny):
    meta = onnx_model.emit(tiny).metadata_props
    assert meta["spec"] == "swin"
    assert meta["graph_hash"] == tiny.hash(training=False)
    assert set(meta) == {"spec", "graph_hash", "archdsl_version"}
    assert onnx_model.emit(tiny, metadata={"form": "train"}).metadata_props == {**meta, "form": "train"}


def test_a_fixed_batch_is_fixed_everywhere(tiny):
    model = checked(tiny, batch=2)
    assert all(value.shape[0] == 2 for node in model.graph for value in node.outputs if value.shape)
    assert run(model, images(tiny, 2))[0].shape == (2, 10)


SINCE = {"HardSwish": 14, "LayerNormalization": 17, "Gelu": 20}


@pytest.mark.parametrize("form", ["train", "deploy", "fp16"])
@pytest.mark.parametrize("name", ["swin", "swin-free, batch norm by token", "vit", "convnext", "mixed"])
def test_every_opset_gives_the_same_network(name, form):
    g = NETS[name]()
    weights, x = with_own_statistics(g, random_weights(g)), images(g, 2)
    want = torch_fx.emit(g, weights).eval()(torch.from_numpy(x)).detach().numpy()
    if form != "train":
        network = deploy_graph(g, weights, precision="fp16" if form == "fp16" else "fp32")
        g, weights = network.graph, network.weights
    usual = set(forms(emit(g, weights)))
    for opset in (13, 15, 17, 18, 20, newest_opset()):
        model = checked(g, weights, opset=opset)
        assert {op: op in forms(model) for op in SINCE} == {op: op in usual and SINCE[op] <= opset for op in SINCE}
        if opset <= 20:  # the newest that onnx knows, the runtime may not know yet
            error = abs(run(model, x)[0] - want).max() / abs(want).max()
            assert error < (5e-3 if form == "fp16" else 2e-5), opset


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "hardswish"])
def test_activations_in_older_ops_hold_at_the_ends_of_fp16(act):
    ends = np.array([-60000, -300, -41, -2.5, -1e-3, 0, 1e-3, 2.5, 41, 300, 60000], np.float16)
    g = Graph("act")
    x = g.input("x", TensorType((11, 1), "f16", order=Raster(11, 1)))
    g.output("y", g.add(Activation(act), x, path="act"))
    new, old = (run(checked(g, opset=opset), ends.reshape(1, 11, 1))[0] for opset in (20, 13))
    assert np.allclose(old, new, rtol=4e-3, atol=2e-3)


def test_a_norm_in_older_ops_takes_its_statistics_in_fp32():
    g = Graph("norm")
    x = g.input("x", TensorType((2, 8), "f16", order=Raster(2, 1)))
    g.output("y", g.add(LayerNorm(8), x, path="norm"))
    large = np.random.default_rng(0).standard_normal((3, 2, 8)).astype(np.float16) * np.float16(3000)
    wide = torch.from_numpy(large).float()
    want = torch.nn.functional.layer_norm(wide, (8,)).numpy()
    for opset in (13, 17):
        assert np.allclose(run(checked(g, opset=opset), large)[0], want, atol=5e-3)


@pytest.mark.parametrize(
    ("opset", "bf16", "said"),
    [
        (12, False, "writes opsets 13 to {newest} here, but got 12"),
        (10**50, False, "writes opsets 13 to {newest} here, but got 1000000"),
        ("17", False, "writes opsets 13 to {newest} here, but got '17'"),
        (True, False, "writes opsets 13 to {newest} here, but got True"),
        (21, True, "bf16 is written in opsets 22 to {newest} here, because bf16 convolutions came with 22, but got 21"),
    ],
)
def test_an_opset_that_cannot_be_written_is_refused(opset, bf16, said, tiny):
    g = deploy_graph(tiny, precision="bf16").graph if bf16 else tiny
    with pytest.raises(BackendError, match=re.escape(said.format(newest=newest_opset()))):
        onnx_model.emit(g, opset=opset)


def test_the_form_for_a_runtime_at_an_older_opset_has_products_for_attention(tiny):
    dialect = DIALECTS["onnxruntime"]
    new, old = (checked(tiny, random_weights(tiny), batch=1, dialect=dialect, opset=opset) for opset in (23, 22))
    assert "Attention" in forms(new) and "Attention" not in forms(old)
    x = images(tiny, 1)
    assert np.allclose(run(new, x)[0], run(old, x)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("write", "opset", "said"),
    [
        (lambda e, op, x: e.op("Gelu", x), 19, "onnx:1:1: Gelu came with opset 20, but 19 is written"),
        (lambda e, op, x: e.op("ReduceMean", x, e.integers(1)), 17, "ReduceMean has another form in opset 17"),
        (lambda e, op, x: e.op("ReduceMean", x, axes=[1]), 18, "ReduceMean has another form in opset 18"),
        (lambda e, op, x: e.op("FastGelu", x), 20, "onnx has no op FastGelu"),
    ],
    ids=["newer op", "newer form", "older form", "no op"],
)
def test_an_emitter_that_writes_what_the_opset_has_not_is_told_so(write, opset, said, monkeypatch):
    g = Graph("act")
    g.output("y", g.add(Activation("relu"), g.input("x", TensorType((4, 1), order=Raster(4, 1))), path="act"))
    monkeypatch.setitem(onnx_model.EMITTERS, Activation, write)
    with pytest.raises(BackendError, match=re.escape(said)):
        onnx_model.emit(g, opset=opset)


def test_outputs_may_be_an_input_one_value_twice_or_named_like_a_node():
    g = Graph()
    x = g.input("x", TensorType((4,)))
    y = g.add(Linear(4, 4), x, path="y")
    z = g.add(Add(), y, y, path="z")
    for name, value in {"y": z, "same": z, "raw": x, "inner": y}.items():
        g.output(name, value)
    weights, numbers = random_weights(g), np.ones((3, 4), np.float32)
    got = dict(zip(g.outputs, run(checked(g, weights), numbers), strict=True))
    inner = numbers @ weights["y.weight"].T + weights["y.bias"]
    np.testing.assert_allclose(got["inner"], inner, rtol=1e-6)
    np.testing.assert_allclose(got["y"], 2 * inner, rtol=1e-6)
    assert (got["same"] == got["y"]).all()
    assert (got["raw"] == numbers).all()


def test_half_precision_in_the_types_is_half_precision_in_the_model():
    g = Graph()
    g.output("y", g.add(Linear(8, 8), g.input("x", TensorType((5, 8), dtype="f16")), path="fc"))
    x = np.ones((2, 5, 8), np.float16)
    (y,) = run(checked(g, random_weights(g)), x)
    assert y.dtype == np.float16


def test_weights_that_do_not_fit_are_refused(tiny):
    weights = initial_weights(tiny)
    del weights["head.fc.bias"]
    with pytest.raises(WeightsError, match=r"--weights:1:1: the network needs the tensor 'head.fc.bias' \[10\]"):
        onnx_model.emit(tiny, weights)


# ---- files


def test_the_file_is_what_is_in_memory(tiny, tmp_path):
    path = tmp_path / "net.onnx"
    onnx_model.save(tiny, path)
    assert path.read_bytes() == onnx_model.serialize(onnx_model.emit(tiny))
    assert os.listdir(tmp_path) == ["net.onnx"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_large_model_keeps_its_tensors_in_a_second_file(tmp_path):
    g = Graph("wide")
    g.output("y", g.add(Linear(300, 200), g.input("x", TensorType((300,))), path="fc"))
    weights, path, x = random_weights(g), tmp_path / "wide.onnx", np.ones((2, 300), np.float32)
    onnx_file.write(onnx_model.emit(g, weights), path, external_bytes=100_000)

    (data,) = tmp_path.glob("wide.onnx.*.data")
    assert data.stat().st_size == 300 * 200 * 4
    assert path.stat().st_size < 10_000
    onnx.checker.check_model(str(path), full_check=True)
    (got,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(got, x @ weights["fc.weight"].T + weights["fc.bias"], rtol=1e-4, atol=1e-4)

    onnx_file.write(onnx_model.emit(g, random_weights(g, seed=1)), path, external_bytes=100_000)
    (new,) = tmp_path.glob("wide.onnx.*.data")  # the old one went with its model
    assert new != data


def test_a_write_that_fails_leaves_what_was_there(tiny, tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArchError, match="cannot be written: No space left on device"):
        onnx_model.save(tiny, path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_a_folder_that_is_not_there_is_a_clear_error(tiny, tmp_path):
    with pytest.raises(ArchError, match=r"net.onnx:1:1: .*cannot be written: No such file or directory"):
        onnx_model.save(tiny, tmp_path / "nowhere" / "net.onnx")
