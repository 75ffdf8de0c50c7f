"""SwinV2 computes what timm's and transformers' compute, in every form."""

from __future__ import annotations

from math import log
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from onnx_runs import checked
from onnx_runs import run as run_onnx
from same_function import after, torch_outputs
from shipped import assert_telling, difference
from test_source import network, pair
from timm_references import images, no_initialisation, telling
from torch import Tensor, fx, nn

import archdsl
from archdsl.backends.initial import initial_weights
from archdsl.backends.onnx.model import emit
from archdsl.ir.graph import Graph
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType
from archdsl.language import load
from archdsl.language.architecture.model import Spec
from archdsl.ops.cosine import ContinuousPositionBias, HeadNorm
from archdsl.ops.linear import Linear
from archdsl.ops.norm import Shift
from archdsl.ops.pointwise import Add
from archdsl.ops.tokens import Slice
from archdsl.passes.fold_shifts import fold as fold_shifts

SIZE = 128
SMALL: dict[str, Any] = {
    "input.size": SIZE,
    "stem.dim": 32,
    "stages.2.depth": 2,
    **{f"stages.{i}.heads": 2**i for i in range(4)},
}


def of_timm(timm: ModuleType, **options: Any) -> nn.Module:
    """SwinV2-T made small, with scales of the logits below, at and above the greatest that is let through."""
    made: dict[str, Any] = {"img_size": SIZE, "embed_dim": 32, "num_heads": (1, 2, 4, 8), "depths": (2, 2, 2, 2)}
    with no_initialisation():
        model = telling(timm.create_model("swinv2_tiny_window8_256", **(made | options))).eval()
    clamped(model, "logit_scale")
    return model


@torch.no_grad()
def clamped(model: nn.Module, ending: str) -> None:
    for name, tensor in model.named_parameters():
        if name.endswith(ending):
            tensor.copy_(torch.linspace(1.5, log(100) + 0.5, tensor.numel()).view_as(tensor))


def ours(spec: Spec, theirs: nn.Module, source: str = "timm") -> fx.GraphModule:
    return archdsl.build(spec, archdsl.import_weights(spec, theirs.state_dict(), source)).eval()


def assert_same_logits(theirs: nn.Module, spec: Spec, source: str = "timm") -> None:
    x = images(3, *spec.input.size)
    with torch.inference_mode():
        want = theirs(x)
        assert_telling(want)
        assert difference(ours(spec, theirs, source)(x), want) <= 1e-5


def telling_pair(**more: Any) -> tuple[Spec, nn.Module, nn.Module]:
    """The small network and that of its file, with the same weights."""
    spec = load("swinv2_t_w8_256", set=SMALL | more)
    mine, written = pair(spec)
    clamped(mine, "logit_scale")
    written.load_state_dict(mine.state_dict())
    return spec, mine.eval(), written.eval()


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # changes of the spec, and timm's
    "w8": ({}, {"window_size": 8}),
    "w16": ({"stages.*.window": 16}, {"window_size": 16}),
    "w7, padded": ({"stages.*.window": 7}, {"window_size": 7}),
    "4x16": ({"stages.*.window": "4x16"}, {"window_size": (4, 16)}),
    "pretrained": ({"stages.*.pretrained_window": 12}, {"window_size": 8, "pretrained_window_sizes": (12,) * 4}),
}


@pytest.mark.promise(13)
@pytest.mark.parametrize("case", CASES)
def test_swinv2_equals_timm(timm: ModuleType, case: str):
    change, options = CASES[case]
    assert_same_logits(of_timm(timm, **options), load("swinv2_t_w8_256", set=SMALL | change))


def test_gradients_of_all_parameters_equal_timms(timm: ModuleType):
    """In fp64, since the gradient of a head's scale is one small sum of many large numbers."""
    theirs, spec = of_timm(timm, window_size=8), load("swinv2_t_w8_256", set=SMALL)
    mine, theirs, x = ours(spec, theirs).double(), theirs.double(), images(2, SIZE).double()
    direction = torch.randn(2, 1000, generator=torch.Generator().manual_seed(2)).double()
    for model in (theirs, mine):
        (model(x) * direction).sum().backward()
    wanted = archdsl.import_weights(spec, {name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in mine.named_parameters():
        if not wanted[name].any():  # the one head of the first stage is beyond the greatest scale
            assert name.endswith("logit_scale")
            assert not parameter.grad.any()
        else:
            assert difference(parameter.grad.float(), wanted[name]) <= 1e-5, name
    assert sum(wanted[name].any().item() for name in wanted if name.endswith("logit_scale")) >= 6


def test_swinv2_equals_transformers(transformers: ModuleType):
    class Logits(transformers.Swinv2ForImageClassification):  # type: ignore[name-defined, misc]
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).logits

    config = transformers.Swinv2Config(
        image_size=SIZE, embed_dim=32, depths=[2] * 4, num_heads=[1, 2, 4, 8], window_size=8, num_labels=1000
    )
    theirs = telling(Logits(config)).eval()
    clamped(theirs, "logit_scale")
    assert_same_logits(theirs, load("swinv2_t_w8_256", set=SMALL), "huggingface")


@pytest.mark.parametrize("window", [8, 7, "4x16"])
def test_every_backend_and_the_deployed_network_compute_the_same(window: Any):
    spec, mine, written = telling_pair(**{"stages.*.window": window})
    x, weights = images(2, SIZE), mine.state_dict()
    numbers = {name: value.numpy() for name, value in weights.items()}
    with torch.inference_mode():
        want, by_file = mine(x), written(x)
    assert_telling(want)
    deployed = archdsl.deploy(spec, weights)
    assert not any(isinstance(node.op, Shift | ContinuousPositionBias) for node in deployed.graph.live())
    (by_torch,) = torch_outputs(deployed, [x.numpy()])
    (by_onnx,) = run_onnx(checked(archdsl.compile(spec), numbers), x.numpy())
    (deployed_onnx,) = run_onnx(checked(deployed.graph, deployed.weights), x.numpy())
    for got in (by_file.numpy(), by_torch, by_onnx, deployed_onnx):
        assert difference(torch.from_numpy(got), want) <= 1e-5


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt-rtx"])
def test_the_form_for_a_runtime_computes_the_same(runtime: str, tmp_path: Any):
    import onnxruntime

    spec, mine, _ = telling_pair()
    path = tmp_path / "model.onnx"
    archdsl.export_onnx(spec, path, mine.state_dict(), batch=1, runtime=runtime)
    x = images(1, SIZE)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        assert difference(torch.from_numpy(got), mine(x)) <= 1e-5


def test_an_old_opset_gives_the_same():
    spec, mine, _ = telling_pair(**{"stages.2.depth": 1, "stages.3.depth": 1})
    numbers = {name: value.numpy() for name, value in mine.state_dict().items()}
    x = images(2, SIZE)
    model = emit(archdsl.compile(spec), numbers, opset=17)
    with torch.inference_mode():
        assert difference(torch.from_numpy(run_onnx(model, x.numpy())[0]), mine(x)) <= 1e-5


def test_a_block_starts_as_the_identity_in_the_network_and_in_its_file():
    spec = load("swinv2_t_w8_256", set=SMALL)
    starts = initial_weights(archdsl.compile(spec))
    for name in ("norm1", "norm2"):
        assert not starts[f"stages.1.blocks.1.{name}.weight"].any()
    assert starts["stages.1.downsample.norm.weight"].all()
    np.testing.assert_allclose(starts["stages.1.blocks.1.attn.logit_scale"], log(10), rtol=1e-6)
    written = network(spec).state_dict()
    assert not written["stages.1.blocks.1.norm1.weight"].any()
    assert written["stages.1.downsample.norm.weight"].all()


def test_a_training_step_gives_every_parameter_a_finite_gradient():
    module = telling(archdsl.build(load("swinv2_t_w8_256", set=SMALL | {"drop_path": 0}))).train()
    module(images(2, SIZE)).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


TOKENS = TensorType((6, 8), order=Raster(2, 3))


def test_a_shift_goes_into_the_rows_that_it_is_of():
    g = Graph()
    linear = g.add(Linear(8, 24, bias=False), g.input("x", TOKENS), path="fc")
    q, k, v = (g.add(Slice(i * 8, i * 8 + 8), linear, path=name) for i, name in enumerate("qkv"))
    q, v = (g.add(Shift(8), x, path=f"{x.path}_bias") for x in (q, v))
    g.output("y", g.add(Add(), g.add(Add(), q, k, path="a"), v, path="b"))
    network = after(fold_shifts, graph=g)
    assert not any(isinstance(node.op, Shift) for node in network.graph.live())
    assert not network.weights["fc.bias"][8:16].any()


def test_a_shift_of_what_is_read_elsewhere_stays():
    g = Graph()
    linear = g.add(Linear(8, 8), g.input("x", TOKENS), path="fc")
    g.output("y", g.add(Add(), linear, g.add(Shift(8), linear, path="shift"), path="sum"))
    assert any(isinstance(node.op, Shift) for node in after(fold_shifts, graph=g).graph.live())


def test_a_head_of_zeros_stays_zeros():
    g = Graph()
    g.output("y", g.add(HeadNorm(2), g.input("x", TOKENS), path="y"))
    x = np.random.default_rng(0).standard_normal((2, 6, 8), dtype=np.float32)
    x[0, 0, :4] = 0
    (got,) = run_onnx(checked(g, {}), x)
    heads = x.reshape(2, 6, 2, 4)
    want = (heads / np.maximum(np.linalg.norm(heads, axis=-1, keepdims=True), 1e-12)).reshape(x.shape)
    assert np.abs(got - want).max() < 1e-6
