"""int8, int8-weights and fp8 on networks that were trained: what they cost, and what is in the file."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import archdsl
from archdsl.backends.onnx import file as onnx_file
from archdsl.backends.onnx.quantize.int8 import quantize_int8
from archdsl.backends.onnx.read import precision_of
from archdsl.backends.onnx.run import _by_onnxruntime, _by_openvino
from archdsl.errors import BackendError
from archdsl.language import loads
from archdsl.training import parse_source
from archdsl.training.loop import train
from archdsl.training.recipe import RECIPES

TEXT = """
name: tiny
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages:
  - {block: convnext, depth: 1}
  - {block: swin, depth: 2, heads: 2, window: 2, shift: true}
head: {type: classifier, classes: 3}
"""
TINY = loads(TEXT)
TINY_BR = loads(TEXT + "defaults: {norm: batch, act: relu}\n")
"""Its linears read the sums between blocks, since the norms before them are folded."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A micro network after the quick recipe: weights, images and labels it has not seen."""
    data = parse_source("synthetic").open((32, 32))
    module = archdsl.build("micro_swin")
    train(module, data, RECIPES["quick"], seed=0, threads=1)
    images, labels = zip(*data.val_batches(256), strict=True)
    return module.state_dict(), torch.cat(images).numpy(), torch.cat(labels).numpy()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32)


def multiplied(model: onnx.ModelProto) -> dict[str, np.ndarray | None]:
    """What each product multiplies by, by the node's name, as it is stored; None for a value that is computed."""
    stored = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    rounded = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    return {node.name: stored.get(rounded.get(node.input[1], node.input[1])) for node in nodes}


def test_a_trained_network_answers_nearly_the_same_in_int8(trained, tmp_path):
    weights, images, labels = trained
    archdsl.export_onnx("micro_swin", tmp_path / "fp32.onnx", weights, batch=None)
    archdsl.export_onnx("micro_swin", tmp_path / "int8.onnx", weights, precision="int8", images=images[:64], batch=None)
    full, small = (_by_onnxruntime(str(tmp_path / name), images[64:], None) for name in ("fp32.onnx", "int8.onnx"))
    accuracy = {name: (x.argmax(1) == labels[64:]).mean() for name, x in (("fp32", full), ("int8", small))}
    assert accuracy["fp32"] > 0.9, "the network did not learn, so this test says nothing"
    assert accuracy["int8"] > accuracy["fp32"] - 0.02
    assert (small.argmax(1) == full.argmax(1)).mean() > 0.98
    errors = abs(small - full) / abs(full).max()  # the largest of 11,520 depends on the processor that trained
    assert np.quantile(errors, 0.99) < 0.06 and np.quantile(errors, 0.999) < 0.08 and errors.max() < 0.12


@pytest.mark.parametrize("spec", [TINY, TINY_BR], ids=["layer norm", "BR"])
def test_linears_are_int8_by_channel_and_nothing_else_is(spec, images, tmp_path):
    archdsl.export_onnx(spec, tmp_path / "fp32.onnx")
    archdsl.export_onnx(spec, tmp_path / "int8.onnx", precision="int8", images=images)
    full, small = (onnx.load(tmp_path / name) for name in ("fp32.onnx", "int8.onnx"))
    onnx.checker.check_model(small, full_check=True)
    before, after = multiplied(full), multiplied(small)
    assert before.keys() == after.keys()
    linears = {name for name, x in before.items() if x is not None and x.ndim == 2 and not name.startswith("head")}
    assert len(linears) == 2 + 2 * 4, "those of a ConvNeXt block's MLP and of two Swin blocks"
    for name, weight in after.items():
        if name in linears:
            assert weight.dtype == np.int8 and 4 * weight.nbytes == before[name].nbytes
        elif weight is not None:
            np.testing.assert_array_equal(weight, before[name])
    assert sum(x is None for x in after.values()) == 4, "attention's products"

    stored = {x.name: numpy_helper.to_array(x) for x in small.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in small.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in small.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            weight, scale = stored[node.input[0]], stored[node.input[1]]
            axis = next(a.i for a in node.attribute if a.name == "axis")
            assert axis == 1 and scale.shape == (weight.shape[1],), "one scale a channel of the output"
        if node.op_type == "QuantizeLinear":
            (pair,) = readers[node.output[0]]
            assert {reader.name for reader in readers[pair.output[0]]} <= linears, "only what a linear reads is rounded"
            assert stored[node.input[2]] == 0, "symmetric"


def test_onnx_runtime_has_int8_kernels_for_all_of_it(images, tmp_path):
    """After its own rewriting, no weight is made fp32 again at every run."""
    archdsl.export_onnx(TINY, tmp_path / "int8.onnx", precision="int8", images=images)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "seen.onnx"), 4
    onnxruntime.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    types = Counter(node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node)
    assert types["MatMulIntegerToFloat"] == 2 + 2 * 4 and not types["DequantizeLinear"]


@pytest.mark.parametrize("batch", [1, 4, None])
def test_both_runtimes_take_it_at_every_batch(batch, images, tmp_path):
    path = tmp_path / "int8.onnx"
    archdsl.export_onnx(TINY, path, precision="int8", images=images, batch=batch)
    want = archdsl.build(TINY).eval()(torch.from_numpy(images)).detach().numpy()
    for run in (_by_onnxruntime, _by_openvino):
        got = run(str(path), images, None)
        assert abs(got - want).max() < 0.1 * abs(want).max()
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == (batch or 0)


AGAIN = """
import logging, sys, numpy, archdsl
from archdsl.language import loads
before = logging.root.manager.disable
archdsl.export_onnx(loads(sys.argv[1]), "b", precision="int8", images=numpy.load("images.npy"))
assert not logging.root.handlers and logging.root.manager.disable == before
"""


def test_it_is_the_same_each_time_and_nothing_is_printed(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    archdsl.export_onnx(TINY, tmp_path / "a", precision="int8", images=images)
    done = subprocess.run([sys.executable, "-c", AGAIN, TEXT], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "images.npy"]


def test_it_says_what_it_is(images, tmp_path):
    archdsl.export_onnx(TINY, tmp_path / "a", precision="int8", images=images)
    model = onnx.load(tmp_path / "a")
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert (said["precision"], said["form"], said["identity"]) == ("int8", "deploy", archdsl.identity(TINY))
    assert archdsl.identity(loads(said["spec_yaml"])) == said["identity"]
    assert (model.producer_name, model.producer_version) == ("archdsl", said["archdsl_version"])


def test_weights_beside_the_model_are_quantized_too(images, tmp_path, monkeypatch):
    archdsl.export_onnx(TINY, tmp_path / "whole.onnx", precision="int8", images=images)
    monkeypatch.setitem(onnx_file.write.__kwdefaults__, "external_bytes", 1000)
    monkeypatch.setattr(onnx_file, "INLINE_BYTES", 200)
    monkeypatch.setattr("archdsl.backends.onnx.quantize.int8.EXTERNAL_BYTES", 1000)
    archdsl.export_onnx(TINY, tmp_path / "int8.onnx", precision="int8", images=images)
    (data,) = tmp_path.glob("int8.onnx.*.data")
    assert data.stat().st_size > 1000
    whole, split = (_by_onnxruntime(str(tmp_path / name), images, None) for name in ("whole.onnx", "int8.onnx"))
    np.testing.assert_array_equal(whole, split)


def test_without_images_it_says_so(tmp_path):
    archdsl.export_onnx(TINY, tmp_path / "fp32.onnx")
    with pytest.raises(BackendError, match="int8 needs images to calibrate with, got none"):
        quantize_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [])
    with pytest.raises(BackendError, match="the quantizer failed"):
        quantize_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [np.zeros((1, 3, 8, 8))])
    with pytest.raises(BackendError, match="real images"):
        archdsl.export_onnx(TINY, tmp_path / "int8.onnx", precision="int8")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["fp32.onnx"]


# --- narrow formats in fp16 files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "error", "agreement"), [("int8-weights", 0.05, 0.99), ("fp8", 0.25, 0.96)])
def test_a_trained_network_answers_nearly_the_same_in_a_narrow_format(trained, tmp_path, precision, error, agreement):
    weights, images, labels = trained
    archdsl.export_onnx("micro_swin", tmp_path / "fp16.onnx", weights, precision="fp16", batch=None)
    archdsl.export_onnx(
        "micro_swin", tmp_path / "narrow.onnx", weights, precision=precision, images=images[:64], batch=None
    )
    full, narrow = (_by_onnxruntime(str(tmp_path / name), images[64:], None) for name in ("fp16.onnx", "narrow.onnx"))
    assert 0 < abs(narrow - full).max() / abs(full).max() < error
    assert (narrow.argmax(1) == full.argmax(1)).mean() > agreement
    accuracy = [(answer.argmax(1) == labels[64:]).mean() for answer in (full, narrow)]
    assert accuracy[1] > accuracy[0] - 0.02


@pytest.mark.parametrize("spec", [TINY, TINY_BR], ids=["layer norm", "BR"])
@pytest.mark.parametrize(("precision", "stored"), [("int8-weights", "INT8"), ("fp8", "FLOAT8E4M3FN")])
def test_the_linears_inside_are_narrow_and_nothing_else_is(spec, precision, stored, images, tmp_path):
    path = tmp_path / "narrow.onnx"
    archdsl.export_onnx(spec, path, precision=precision, images=images)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert precision_of(model) == precision
    kinds = {x.name: onnx.TensorProto.DataType.Name(x.data_type) for x in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    narrow, wide = set(), set()
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            maker = makers.get(node.input[1])
            of = maker.input[0] if maker and maker.op_type == "DequantizeLinear" else node.input[1]
            (narrow if kinds.get(of) == stored else wide).add(node.name)
            read = makers.get(node.input[0])
            assert (read is not None and read.op_type == "DequantizeLinear") == (
                precision == "fp8" and kinds.get(of) == stored
            )
    inside = ("qkv", "proj", "fc1", "fc2") if precision == "fp8" else ("proj", "fc2")  # what sums read
    assert narrow == {
        f"stages.1.blocks.{i}.{'mlp' if 'fc' in x else 'attn'}.{x}/MatMul" for i in (0, 1) for x in inside
    } | {f"stages.0.blocks.0.mlp.{x}/MatMul" for x in inside if "fc" in x}
    tensors = sum(kind == stored for name, kind in kinds.items() if name.endswith(".stored"))
    assert tensors == len(narrow), "the fp16 weights are gone"
    left = {name for name, kind in kinds.items() if kind == "FLOAT16" and name.endswith("weight")}
    assert not any(name in left for name in (f"{each.removesuffix('/MatMul')}.weight" for each in narrow))


def test_scales_of_weights_are_by_channel_and_of_zeros_are_one(images, tmp_path):
    module = archdsl.build(TINY)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    (fc2,) = (name for name in state if name.endswith("blocks.0.mlp.fc2.weight") and name.startswith("stages.0"))
    state[fc2][3] = 0
    archdsl.export_onnx(TINY, tmp_path / "a.onnx", state, precision="int8-weights")
    stored = {x.name: numpy_helper.to_array(x) for x in onnx.load(tmp_path / "a.onnx").graph.initializer}
    scales = {name: value for name, value in stored.items() if name.endswith(".scale")}
    assert all(scale.shape == stored[name.replace(".scale", ".stored")].shape[1:] for name, scale in scales.items())
    assert any(
        (scale == 1).sum() == 1 and (stored[name.replace(".scale", ".stored")][:, scale == 1] == 0).all()
        for name, scale in scales.items()
    )


def test_fp8_calibrates_on_all_images(images, tmp_path):
    for scale in (1, 10):
        given = images.copy()
        given[-1] *= scale
        archdsl.export_onnx(TINY, tmp_path / f"{scale}.onnx", precision="fp8", images=given)
    found = []
    for scale in (1, 10):
        model = onnx.load(tmp_path / f"{scale}.onnx")
        found.append({x.name: float(numpy_helper.to_array(x)) for x in model.graph.initializer if x.dims == []})
    assert found[0].keys() == found[1].keys() and found[0] != found[1]


def test_a_narrow_format_is_refused_where_it_cannot_be(images, tmp_path):
    with pytest.raises(BackendError, match="fp8 needs the deploy form and real images"):
        archdsl.export_onnx(TINY, tmp_path / "a", precision="fp8")
    with pytest.raises(BackendError, match="the train form is fp32, so int8-weights needs the deploy form"):
        archdsl.export_onnx(TINY, tmp_path / "a", deploy=False, precision="int8-weights")
    with pytest.raises(BackendError, match="fp8 needs images to calibrate with, got none"):
        archdsl.export_onnx(TINY, tmp_path / "a", precision="fp8", images=images[:0])
    with pytest.raises(BackendError, match="fp8 is made as ONNX only, not as a PyTorch module"):
        archdsl.build(TINY, deploy=True, precision="fp8")
    with pytest.raises(BackendError, match="narrow formats in fp16 are written in opsets 19 to"):
        archdsl.export_onnx(TINY, tmp_path / "a", precision="int8-weights", opset=18)
    assert list(tmp_path.iterdir()) == []
