"""The deploy form of every shipped spec computes what its train form does, on PyTorch and on ONNX Runtime.

The largest difference may be, as a share of the largest logit, TOLERANCE in fp32 (on x86 it is 1e-6) and what
`backends.precision` allows in fp16 and bf16. Every comparison also asserts that the logits differ between images by at
least a tenth of the largest, so that it could have failed. Networks above 2 GMACs are run with two blocks a stage.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_runs import run
from shipped import assert_telling, at_test_size, difference, distinct, numbers_of, side_by_side, telling_module
from timm_references import images

import archdsl
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.onnx.dialects import dialect_for
from archdsl.backends.parity import as_one, parity_of
from archdsl.backends.precision import PRECISIONS
from archdsl.backends.torch import fx as torch_fx
from archdsl.compiler import deploy
from archdsl.errors import BackendError, WeightsError
from archdsl.language import load_space, loads
from archdsl.passes.network import Network

TOLERANCE = 1e-4
KINDS = ["convnext_swin_t", "convnext_t", "micro_swin_free", "swin_b_br", "swin_free_t", "swin_free_t_br", "swin_t"]
KINDS += ["vit_ti_16"]
"""One spec of each kind: shifted or not, layer or batch norm, convolutions, both, a class token."""


def in_torch(network: Network, x: torch.Tensor) -> torch.Tensor:
    module = torch_fx.emit(network.graph, network.weights, deploy=True)
    with torch.inference_mode():
        return side_by_side(module(x))


def in_onnxruntime(network: Network, x: torch.Tensor, **how: object) -> torch.Tensor:
    outputs = run(onnx_model.emit(network.graph, network.weights, **how), x.numpy())
    return torch.from_numpy(as_one(outputs))


class Trained:
    """A network in its train form, two images and its logits."""

    def __init__(self, name: str):
        self.spec = at_test_size(name)
        module = telling_module(self.spec)
        self.images = images(2, *self.spec.input.size)
        with torch.inference_mode():
            self.logits = side_by_side(module(self.images))
        self.weights = numbers_of(module)
        assert_telling(self.logits)


@pytest.mark.parametrize("name", distinct())
def test_the_deploy_form_computes_what_the_train_form_does(name: str):
    trained = Trained(name)
    network = deploy(trained.spec, trained.weights)
    assert difference(in_torch(network, trained.images), trained.logits) <= TOLERANCE
    assert difference(in_onnxruntime(network, trained.images), trained.logits) <= TOLERANCE


@pytest.mark.parametrize("name", ["convnext_swin_t", "micro_swin", "swin_t", "vit_ti_16"])
def test_the_forms_for_onnx_runtime_and_for_one_image_compute_the_same(name: str):
    trained = Trained(name)
    network = deploy(trained.spec, trained.weights)
    x = trained.images[:1]
    assert difference(in_onnxruntime(network, x, batch=1), trained.logits[:1]) <= TOLERANCE
    dialect = dialect_for("onnxruntime")
    assert difference(in_onnxruntime(network, x, batch=1, dialect=dialect), trained.logits[:1]) <= TOLERANCE
    assert difference(in_onnxruntime(network, trained.images, dialect=dialect), trained.logits) <= TOLERANCE


@pytest.mark.promise(14)
@pytest.mark.parametrize("name", KINDS)
def test_fp16_and_bf16_stay_within_their_gates(name: str):
    """On PyTorch; fp16 on ONNX Runtime too, whose CPU kernels know no bf16."""
    trained = Trained(name)
    want = trained.logits.numpy()
    for precision in ("fp16", "bf16"):
        network = deploy(trained.spec, trained.weights, precision=precision)
        parity = parity_of(in_torch(network, trained.images).numpy(), want, precision)
        assert parity.passed, f"{precision} on torch: {parity}"
        assert parity.max_rel_error > TOLERANCE, f"{precision} cannot be so near, it is fp32"
        if precision == "fp16":
            parity = parity_of(in_onnxruntime(network, trained.images).numpy(), want, precision)
            assert parity.passed, f"fp16 on ONNX Runtime: {parity}"


def test_the_gate_of_a_precision_is_wider_than_that_of_a_finer_one():
    gates = [PRECISIONS[name] for name in ("fp32", "fp16", "bf16", "int8")]
    assert [gate.tolerance for gate in gates] == sorted(gate.tolerance for gate in gates)
    assert [gate.cosine for gate in gates] == sorted((gate.cosine for gate in gates), reverse=True)
    assert PRECISIONS["fp32"].tolerance == TOLERANCE


def test_build_and_export_make_the_deploy_form(tmp_path: Path):
    trained = Trained("micro_swin_free_br")
    module = archdsl.build(trained.spec, trained.weights, deploy=True)
    assert not module.training and not any("running" in name for name in module.state_dict())
    with torch.inference_mode():
        assert difference(module(trained.images), trained.logits) <= TOLERANCE

    archdsl.export_onnx(trained.spec, tmp_path / "one.onnx", trained.weights)
    archdsl.export_onnx(trained.spec, tmp_path / "any.onnx", trained.weights, batch=None)
    for name, batch in (("one", 1), ("any", 2)):
        model = onnx.load(tmp_path / f"{name}.onnx")
        found = run_file(tmp_path / f"{name}.onnx", trained.images[:batch])
        assert difference(found, trained.logits[:batch]) <= TOLERANCE
        assert not any("running" in tensor.name for tensor in model.graph.initializer)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_build_and_export_take_a_precision(tmp_path: Path, precision: str):
    trained = Trained("micro_swin")
    module = archdsl.build(trained.spec, trained.weights, deploy=True, precision=precision)
    with torch.inference_mode():
        found = module(trained.images)
    assert found.dtype == torch.float32
    assert TOLERANCE < difference(found, trained.logits) <= PRECISIONS[precision].tolerance
    archdsl.export_onnx(trained.spec, tmp_path / "m.onnx", trained.weights, precision=precision)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    kind = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
    assert kind in {tensor.data_type for tensor in model.graph.initializer}


def test_the_train_form_has_no_other_precision():
    with pytest.raises(BackendError, match="the train form is fp32, so fp16 needs the deploy form"):
        archdsl.build("micro_swin", precision="fp16")


def test_a_precision_that_does_not_exist_is_refused_by_name():
    with pytest.raises(
        BackendError, match="a precision is one of fp32, fp16, bf16, int8, int8-weights, fp8, got 'fp4'"
    ):
        deploy("micro_swin", precision="fp4")


def test_a_tensor_that_is_missing_is_named():
    weights = Trained("micro_swin").weights
    del weights["stages.0.blocks.0.norm1.bias"]
    with pytest.raises(WeightsError, match=r"the network needs the tensor 'stages\.0\.blocks\.0\.norm1\.bias'"):
        deploy("micro_swin", weights)


def test_torch_weights_of_any_format_deploy_alike():
    trained = Trained("micro_swin")
    halves = {name: torch.from_numpy(value).half() for name, value in trained.weights.items()}
    arrays = {name: value.float().numpy() for name, value in halves.items()}
    a, b = deploy(trained.spec, halves), deploy(trained.spec, arrays)
    assert a.weights.keys() == b.weights.keys()
    assert all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_deploying_leaves_the_weights_it_was_given_alone():
    trained = Trained("micro_swin_free_br")
    before = {name: value.copy() for name, value in trained.weights.items()}
    deploy(trained.spec, trained.weights, precision="fp16")
    assert all(np.array_equal(before[name], trained.weights[name]) for name in before)


def test_maps_that_windows_do_not_divide_deploy_too():
    """Padded windows: the norms before them shift, so they stay; and odd maps in patch merging."""
    for change in ({}, {"defaults.norm": "batch", "defaults.norm_axis": "token"}, {"defaults.norm": "batch"}):
        spec = archdsl.load("micro_swin", set={"input.size": 36, "stages.*.window": 4, **change})
        module, x = telling_module(spec), images(2, 36)
        with torch.inference_mode():
            want = module(x)
        assert_telling(want)
        network = deploy(spec, numbers_of(module))
        assert difference(in_torch(network, x), want) <= TOLERANCE
        assert difference(in_onnxruntime(network, x), want) <= TOLERANCE


@pytest.mark.parametrize("name", ["micro_swin", "micro_swin_free"])
def test_batch_norm_of_token_positions_deploys(name: str):
    """As in Swin-Free's released code; the numbers are put into the order of the windows."""
    spec = archdsl.load(name, set={"defaults.norm": "batch", "defaults.norm_axis": "token"})
    module, x = telling_module(spec), images(2, *spec.input.size)
    with torch.inference_mode():
        want = module(x)
    assert_telling(want)
    network = deploy(spec, numbers_of(module))
    assert difference(in_torch(network, x), want) <= TOLERANCE
    assert difference(in_onnxruntime(network, x), want) <= TOLERANCE


MIXED = """
name: mixed
input: {size: 64}
stem: {type: patch, patch: 4, dim: 16, norm: NORM}
defaults: {norm: NORM, norm_axis: AXIS}
stages:
  - blocks:
    - {block: convnext}
    - {block: swin, heads: 2, window: 5, shift: true, qkv_bias: false}
    - {block: vit, heads: 4}
  - {block: vit, depth: 1, heads: 4, downsample: {type: conv, kernel: 3}}
  - {block: convnext, depth: 1, kernel: 3, layer_scale: null, downsample: {type: patch_merging, norm: none}}
head: {type: classifier, classes: 5, norm_after_pool: AFTER, norm_axis: channel}
"""


@pytest.mark.parametrize("norm", ["layer channel", "batch channel", "batch token"])
@pytest.mark.parametrize("after", ["true", "false"])
def test_a_network_of_all_kinds_of_blocks_deploys(norm: str, after: str):
    """Padded windows, a convolution with padding behind a norm, linears and downsamplings without biases and norms."""
    kind, axis = norm.split()
    spec = loads(MIXED.replace("NORM", kind).replace("AXIS", axis).replace("AFTER", after))
    module, x = telling_module(spec), images(2, 64)
    with torch.inference_mode():
        want = module(x)
    assert_telling(want)
    network = deploy(spec, numbers_of(module))
    assert difference(in_torch(network, x), want) <= TOLERANCE
    assert difference(in_onnxruntime(network, x), want) <= TOLERANCE


def test_settings_of_the_quickstart_deploy():
    space, draw = load_space("quickstart"), random.Random(2)
    for _ in range(12):
        spec = space.spec(space.sample(draw))
        module, x = telling_module(spec), images(2, *spec.input.size)
        with torch.inference_mode():
            want = module(x)
        network = deploy(spec, numbers_of(module))
        assert difference(in_torch(network, x), want) <= TOLERANCE


def run_file(path: Path, x: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return torch.from_numpy(session.run(None, {taken.name: x.numpy()})[0])
